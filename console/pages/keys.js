import {part} from '../api.js';
import {badge, button, code, definitions, h, replace, section, table} from '../dom.js';
import {boundsFields, capsInWords, editBounds, limitsInWords, readBounds} from '../bounds.js';
import {confirm, dialog, field, form, showSecret} from '../forms.js';
import {time} from '../format.js';
import {loadNames, optionsOf} from '../names.js';
import {remember} from '../router.js';

const kPath = '/admin/v1/keys';
const kEndpoints = ['chat', 'completions', 'tokenize', 'batches', 'files', 'usage', 'models'];
const kDayS = 86400;

/** @param {import('../app.js').Context} context */
export async function showKeys(context) {
  await (context.isOperator ? showAll(context) : showOwn(context));
}

/** How the secret begins; the prefix is what follows "mp-". */
const shownPrefix = (key) => `mp-${key.prefix}-…`;
const scopes = (list) => (list?.length ? list.join(', ') : 'all');

function stateBadge(key) {
  if (key.state !== 'active') return badge(key.state, 'bad');
  // The operator's clock is near enough for a warning.
  if (key.expires_at && key.expires_at < Date.now() / 1000 + 7 * kDayS)
    return badge('expires soon', 'warn');
  return badge('active', 'good');
}

async function showOwn({main, api, signal, currency}) {
  const account = await api.get('/v1/account', signal);
  const {key} = account;
  const caps = (account.caps ?? []).filter((cap) => cap.of === 'key');
  replace(main, section('Your key', null, definitions([
    ['Name', key.name], ['Begins with', code(shownPrefix(key))], ['Id', code(key.id)],
    ['Tenant', account.tenant?.name ?? '–'], ['Project', account.project?.name ?? '–'],
    ['Expires', key.expires_at ? time(key.expires_at) : 'never'],
    ['Models', scopes(key.models)], ['Endpoints', scopes(key.endpoints)],
    ['Caps', capsInWords(caps, currency)],
    ['Limits', limitsInWords(account.limits?.key)]])),
  h('p', {class: 'hint'}, 'Keys are made, rotated and revoked by the operator. If this one has ' +
    'become known to others, have it rotated.'));
}

async function showAll(context) {
  const {main, api, signal, currency, parameters, reload} = context;
  const names = await loadNames(api, signal);
  const list = h('div', {});
  const tenant = field({name: 'tenant', label: 'Tenant', type: 'select',
    options: optionsOf(names.tenants, 'all tenants'), value: parameters.get('tenant') ?? ''});
  const ended = field({name: 'ended', label: 'Show revoked and expired keys', type: 'checkbox'});
  const select = tenant.querySelector('select');
  const box = ended.querySelector('input');
  const boundsCell = (key) => [capsInWords(key.caps, currency), limitsInWords(key.limits)].filter(
    (each) => each !== '–').join('; ') || '–';
  const isOver = (key) => key.state !== 'active';
  const create = () => createKey(context, names, select.value);

  function show() {
    remember({tenant: select.value});
    const keys = names.keys.filter((key) => (!select.value || key.tenant === select.value) &&
      (box.checked || !isOver(key)));
    replace(list, table({
      caption: 'Keys', rows: keys,
      empty: ['There is no such key. ', button('New key', create, 'primary')],
      columns: [
        {label: 'Key', cell: (key) => [key.name, h('br'), code(shownPrefix(key))]},
        {label: 'State', cell: stateBadge},
        {label: 'Tenant and project', cell: (key) => [key.tenant_name, ' · ', key.project_name]},
        {label: 'Models', cell: (key) => scopes(key.models)},
        {label: 'Endpoints', cell: (key) => scopes(key.endpoints)},
        {label: 'Caps and limits', cell: boundsCell},
        {label: 'Expires', cell: (key) => (key.expires_at ? time(key.expires_at) : 'never')},
        {label: 'Actions', cell: (key) => (isOver(key) ? '–' : h('div', {class: 'row'},
          button('Edit', () => editKey(context, key), 'small', {'aria-label': `Edit ${key.name}`}),
          button('Caps and limits', () => editBounds({api, currency, subject: key, done: reload,
            path: `${kPath}/${part(key.id)}`, title: `Caps and limits of ${key.name}`}), 'small',
          {'aria-label': `Caps and limits of ${key.name}`}),
          button('Rotate', () => rotate(context, key), 'small', {'aria-label': `Rotate ${key.name}`}),
          button('Revoke', () => confirm(`Revoke ${key.name}?`,
            `Whoever uses ${shownPrefix(key)} is refused within a second, for ever.`, 'Revoke',
            async () => {
              await api.delete(`${kPath}/${part(key.id)}`);
              reload();
            }), 'small danger', {'aria-label': `Revoke ${key.name}`})))},
      ],
    }));
  }
  select.addEventListener('change', show);
  box.addEventListener('change', show);
  replace(main, section('All keys', button('New key', create, 'primary'),
    h('div', {class: 'filters'}, tenant, ended), list));
  show();
}

const scopeFields = (key = {}) => [
  field({name: 'models', label: 'Models', value: (key.models ?? []).join(', '),
    placeholder: 'all', hint: 'Names, with commas between them. Empty: all.'}),
  h('fieldset', {}, h('legend', {}, 'Endpoints'),
    h('p', {class: 'hint'}, 'None chosen: all.'),
    h('div', {class: 'columns'}, kEndpoints.map((each) => field({name: `endpoint.${each}`,
      label: each, type: 'checkbox', value: (key.endpoints ?? []).includes(each)})))),
  field({name: 'expires_at', label: 'Expires (UTC)', type: 'datetime-local', hint: 'Empty: never.',
    value: key.expires_at ? new Date(key.expires_at * 1000).toISOString().slice(0, 16) : ''}),
];

function readScopes(said) {
  return {
    models: said.models.split(',').map((each) => each.trim()).filter(Boolean),
    endpoints: kEndpoints.filter((each) => said[`endpoint.${each}`]),
    expires_at: said.expires_at ? Math.floor(Date.parse(`${said.expires_at}Z`) / 1000) : null,
  };
}

function createKey({api, currency, reload}, names, tenant) {
  const projects = names.projects.filter((project) => !tenant || project.tenant === tenant);
  dialog('New key', (close) => form({
    submit: 'Create', onCancel: close,
    fields: [
      field({name: 'project', label: 'Project', type: 'select', required: true,
        options: projects.map((each) => [each.id, `${each.tenant_name} · ${each.name}`])}),
      field({name: 'name', label: 'Name', required: true}),
      ...scopeFields(), ...boundsFields({}, currency)],
    onSubmit: async (said) => {
      const {expires_at: expires, ...rest} = readScopes(said);
      const made = await api.post(kPath, {project: said.project, name: said.name, ...rest,
        ...(expires ? {expires_at: expires} : {}), ...readBounds(said)});
      close();
      showSecret(made.secret, reload);
    },
  }));
}

function editKey({api, reload}, key) {
  dialog(`Edit ${key.name}`, (close) => form({
    submit: 'Save', onCancel: close,
    fields: [field({name: 'name', label: 'Name', required: true, value: key.name}),
      ...scopeFields(key)],
    onSubmit: async (said) => {
      await api.patch(`${kPath}/${part(key.id)}`, {name: said.name, ...readScopes(said)});
      close();
      reload();
    },
  }));
}

function rotate({api, reload}, key) {
  dialog(`Rotate ${key.name}`, (close) => form({
    submit: 'Rotate', onCancel: close,
    fields: [h('p', {}, 'Makes a new key with the same rights. The old one goes on for a while, so ' +
      'that whoever uses it can change over.'),
    field({name: 'overlap_h', label: 'Hours until the old key ends', type: 'number', value: 24,
      required: true, attributes: {min: 0, step: 'any'}})],
    onSubmit: async (said) => {
      const made = await api.post(`${kPath}/${part(key.id)}/rotate`,
        {overlap_s: Math.round(Number(said.overlap_h) * 3600)});
      close();
      showSecret(made.secret, reload);
    },
  }));
}
