import {Api, ApiError} from '../api.js';
import {h, replace} from '../dom.js';
import {field, form} from '../forms.js';

/**
 * What a key is good for. Tenants' keys begin with "mp-" and are not offered to the admin API first.
 * Errors: ApiError, that of a key that is good for nothing in words to show.
 * @param {string} key
 * @returns {Promise<{role: string, account: ?Object, currency: string}>}
 */
export async function findRole(key) {
  const api = new Api(key);
  const ways = [
    async () => {
      const overview = await api.get('/admin/v1/overview');
      return {role: 'operator', account: null, currency: overview.currency ?? ''};
    },
    async () => {
      const account = await api.get('/v1/account');
      return {role: 'tenant', account, currency: account.currency ?? ''};
    },
  ];
  if (key.startsWith('mp-')) ways.reverse();
  let refused = null;
  let absent = 0;
  for (const way of ways) {
    try {
      return await way();
    } catch (error) {
      if (!(error instanceof ApiError) || error.status === 0) throw error;
      if (error.status === 404) absent += 1;
      else if (refused === null || error.status !== 401) refused = error;
    }
  }
  if (absent === ways.length)
    throw new ApiError(404, 'This server keeps no accounts: it was started without --ledger, and ' +
      'answers everybody.');
  if (refused?.status === 403)
    throw new ApiError(403, `${refused.message} The console needs a key that may use "usage".`);
  throw new ApiError(401, 'No such key. Look for a typing mistake; a key may also have expired or ' +
    'been revoked. The admin key works on the admin port only.');
}

/** @param {function(string): Promise<void>} signIn @param {string} message why one is here again */
export function showSignIn(app, signIn, message) {
  const heading = h('h1', {tabindex: '-1'}, 'Sign in to Millpower');
  const fields = [field({name: 'key', label: 'Key', type: 'password', required: true,
    hint: 'A tenant’s API key (mp-…), or on the admin port the admin key. It stays in this tab.',
    attributes: {autocomplete: 'off', spellcheck: 'false'}})];
  replace(app, h('main', {id: 'main', class: 'sign-in', tabindex: '-1'},
    h('img', {src: 'icon.svg', alt: '', width: 40, height: 40}), heading,
    message && h('p', {class: 'notice', role: 'status'}, message),
    form({fields, submit: 'Sign in', onSubmit: ({key}) => signIn(key)}),
    h('p', {class: 'hint'}, 'A local server prints the developer’s key when it starts, and keeps it ' +
      'in developer.key in its ledger’s folder.')));
  app.querySelector('input').focus();
}
