// The operator sees ids of tenants, projects and keys; these are their names.

/**
 * @returns {Promise<{tenants: Object[], projects: Object[], keys: Object[],
 *   of: function(string): string}>} `of` gives the id itself where there is no name
 */
export async function loadNames(api, signal) {
  const [tenants, projects, keys] = await Promise.all(['tenants', 'projects', 'keys'].map(
    (each) => api.list(`/admin/v1/${each}`, signal)));
  const names = new Map([...tenants, ...projects, ...keys].map((each) => [each.id, each.name]));
  return {tenants, projects, keys, of: (id) => names.get(id) ?? id ?? '–'};
}

/** Options of a select: all of `things`, after one that says `any`. */
export const optionsOf = (things, any) => [
  ...(any === undefined ? [] : [['', any]]), ...things.map((thing) => [thing.id, thing.name])];
