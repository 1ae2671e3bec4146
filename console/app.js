// The frame around the pages: who is signed in, the navigation, and which page is shown.
import {Api} from './api.js';
import {announce, button, failure, h, replace} from './dom.js';
import {place, to} from './router.js';
import {forget, store, stored} from './session.js';
import {showAudit} from './pages/audit.js';
import {showCaps} from './pages/caps.js';
import {showInvoice, showInvoices} from './pages/invoices.js';
import {showKeys} from './pages/keys.js';
import {showLeases} from './pages/leases.js';
import {showOverview} from './pages/overview.js';
import {showPlayground} from './pages/playground.js';
import {showPrices} from './pages/prices.js';
import {findRole, showSignIn} from './pages/sign_in.js';
import {showTenant, showTenants} from './pages/tenants.js';
import {showUsage} from './pages/usage.js';

/**
 * What a page gets. It puts its elements into `main`, and stops when `signal` is aborted.
 * @typedef {{api: Api, role: string, isOperator: boolean, account: ?Object, main: HTMLElement,
 *   parts: string[], parameters: URLSearchParams, signal: AbortSignal, currency: string,
 *   reload: function(): void}} Context
 */

/** Path, title, who may see it, and what shows it; and what shows one of its things. */
const kPages = [
  {path: 'overview', title: 'Overview', show: showOverview},
  {path: 'playground', title: 'Playground', show: showPlayground},
  {path: 'tenants', title: 'Tenants', show: showTenants, showOne: showTenant, operator: true},
  {path: 'keys', title: 'Keys', show: showKeys},
  {path: 'caps', title: 'Caps', show: showCaps},
  {path: 'usage', title: 'Usage', show: showUsage},
  {path: 'leases', title: 'Leases', show: showLeases},
  {path: 'prices', title: 'Price book', show: showPrices},
  {path: 'invoices', title: 'Invoices', show: showInvoices, showOne: showInvoice},
  {path: 'audit', title: 'Audit', show: showAudit, operator: true},
];

const app = document.getElementById('app');
let session = null;  // {role, key, api, currency, account}
let leaving = new AbortController();  // of the page that is shown

function signOut(message = '') {
  leaving.abort();
  forget();
  session = null;
  for (const dialog of document.querySelectorAll('dialog')) dialog.remove();
  document.title = 'Sign in · Millpower';
  showSignIn(app, signIn, message);
}

async function signIn(key, movesFocus = true) {
  const found = await findRole(key);
  store(found.role, key);
  session = {...found, key, api: new Api(key, () => {
    if (session) signOut('The server does not take this key any more: it may have expired, or been ' +
      'revoked. Sign in again.');
  })};
  showFrame();
  navigate(movesFocus);
}

const pagesOf = (role) => kPages.filter((page) => !page.operator || role === 'operator');

function showFrame() {
  const links = pagesOf(session.role).map((page) => h('li', {},
    h('a', {href: to(page.path), 'data-page': page.path}, page.title)));
  const who = session.role === 'operator' ? 'Operator'
    : `${session.account.tenant?.name ?? ''} · ${session.account.key?.name ?? ''}`;
  replace(app,
    h('header', {class: 'top'},
      h('a', {class: 'brand', href: to('overview')},
        h('img', {src: 'icon.svg', alt: '', width: 22, height: 22}), 'Millpower'),
      h('span', {class: 'who'}, who),
      button('Sign out', () => signOut(), 'quiet')),
    h('div', {class: 'frame'},
      h('nav', {'aria-label': 'Pages'}, h('ul', {}, links)),
      h('main', {id: 'main', tabindex: '-1'})));
}

/** `movesFocus`: not when the browser has just loaded us, and begins at the top by itself. */
async function navigate(movesFocus = true) {
  if (!session) return;
  const {parts, parameters} = place();
  const page = pagesOf(session.role).find((each) => each.path === (parts[0] ?? 'overview'));
  leaving.abort();
  leaving = new AbortController();
  const {signal} = leaving;
  const main = document.getElementById('main');
  for (const link of app.querySelectorAll('nav a')) {
    const isHere = link.dataset.page === page?.path;
    if (isHere) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  const title = page?.title ?? 'No such page';
  document.title = `${title} · Millpower`;
  const body = h('div', {class: 'page'});
  const heading = h('h1', {tabindex: '-1'}, title);
  replace(main, heading, body);
  // A keyboard goes on from here, and a screen reader says where it is.
  if (movesFocus) heading.focus({preventScroll: true});
  window.scrollTo(0, 0);
  if (!page) {
    replace(body, h('p', {}, 'There is no such page. ', h('a', {href: to('overview')}, 'Overview')));
    return;
  }
  const waiting = setTimeout(() => replace(body, h('p', {class: 'empty'}, 'Loading…')), 200);
  const content = h('div', {class: 'page'});
  try {
    const show = page.showOne && parts.length > 1 ? page.showOne : page.show;
    await show({...session, isOperator: session.role === 'operator', main: content, heading,
      parts: parts.slice(1), parameters, signal, reload: () => { if (!signal.aborted) navigate(); }});
    if (!signal.aborted) replace(body, content);
  } catch (error) {
    if (signal.aborted || !session) return;
    replace(body, failure(error, () => navigate()));
    if (!error.status && error.status !== 0) console.error(error);
  } finally {
    clearTimeout(waiting);
  }
  if (!signal.aborted && session) announce(`${heading.textContent} shown.`);
}

document.querySelector('a.skip').addEventListener('click', (event) => {
  event.preventDefault();  // '#main' is not one of our places
  (document.getElementById('main') ?? app.querySelector('h1'))?.focus();
});
window.addEventListener('hashchange', () => navigate());

/** Goes on as who was signed in in this tab, if anybody was. */
async function resume() {
  const earlier = stored();
  if (!earlier) {
    signOut();
    return;
  }
  try {
    await signIn(earlier.key, false);
  } catch (error) {
    if (error.status !== 0) {
      signOut(error.message);
      return;
    }
    replace(app, h('main', {id: 'main', class: 'sign-in', tabindex: '-1'},
      h('h1', {tabindex: '-1'}, 'Millpower'), failure(error, resume)));
  }
}
resume();
