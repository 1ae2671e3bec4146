// The part of the address after '#': "#/tenants/ten_1?from=2026-11-01".

/**
 * @typedef {{path: string, parts: string[], parameters: URLSearchParams}} Place
 * @returns {Place}
 */
export function place() {
  const hash = location.hash.startsWith('#/') ? location.hash.slice(2) : '';
  const [path, queryText = ''] = hash.split('?', 2);
  const parts = path.split('/').filter(Boolean).map((each) => {
    try {
      return decodeURIComponent(each);
    } catch {
      return each;
    }
  });
  return {path, parts, parameters: new URLSearchParams(queryText)};
}

/** A link's address: to('tenants', id). */
export const to = (...parts) => `#/${parts.map(encodeURIComponent).join('/')}`;

export function go(...parts) {
  location.hash = to(...parts);
}

/** Writes what a page is set to into the address, without leaving the page. */
export function remember(parameters) {
  const {path} = place();
  const text = new URLSearchParams(
    Object.entries(parameters).filter(([, value]) => value !== '' && value != null)).toString();
  history.replaceState(null, '', `#/${path}${text ? `?${text}` : ''}`);
}
