// Who is signed in. The key lives in this tab's session storage, and is gone when the tab is closed.

const kEntry = 'millpower.session';

/**
 * @typedef {{role: 'operator'|'tenant', key: string, account: ?Object}} Session
 *   `account`: what /v1/account said, of a tenant
 */

/** @returns {?{role: string, key: string}} */
export function stored() {
  try {
    const session = JSON.parse(sessionStorage.getItem(kEntry) ?? 'null');
    return session && typeof session.key === 'string' ? session : null;
  } catch {
    return null;  // something else's entry
  }
}

export function store(role, key) {
  sessionStorage.setItem(kEntry, JSON.stringify({role, key}));
}

export function forget() {
  sessionStorage.removeItem(kEntry);
}
