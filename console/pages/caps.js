import {part} from '../api.js';
import {button, definitions, h, replace, section} from '../dom.js';
import {capBar, capsOf, editBounds, limitsInWords} from '../bounds.js';
import {field} from '../forms.js';
import {count, money} from '../format.js';
import {loadNames} from '../names.js';

/** @param {import('../app.js').Context} context */
export async function showCaps(context) {
  await (context.isOperator ? showAll(context) : showOwn(context));
}

const kOf = {key: 'This key', project: 'Project', tenant: 'Tenant'};

async function showOwn({main, api, signal, currency}) {
  const account = await api.get('/v1/account', signal);
  const spent = (period) => `${money(account.spent?.[period]?.money, currency)}, ${
    count(account.spent?.[period]?.tokens)} tokens`;
  const caps = account.caps ?? [];
  const kinds = ['key', 'project', 'tenant'];
  replace(main,
    section('Account', null, definitions([
      ['Credit', money(account.credit, currency)],
      ['Available', account.available === null ? 'no bound' : money(account.available, currency)],
      ['Spent today', spent('day')], ['Spent this month', spent('month')],
      ['Spent in all', spent('total')]])),
    section('Caps', null, caps.length === 0
      ? h('div', {class: 'empty'}, 'No cap is set; what runs is bounded by the credit.')
      : kinds.map((kind) => {
        const its = caps.filter((cap) => cap.of === kind);
        return its.length > 0 && h('div', {class: 'card'}, h('h3', {}, kOf[kind]),
          h('div', {class: 'caps'}, its.map((cap) => capBar(cap, currency))));
      })),
    section('Limits', null, definitions(kinds.map(
      (kind) => [kOf[kind], limitsInWords(account.limits?.[kind])]))));
}

async function showAll({main, api, signal, currency, reload}) {
  const names = await loadNames(api, signal);
  const box = field({name: 'bare', label: 'Show also what has no caps and no limits',
    type: 'checkbox'});
  const list = h('div', {class: 'cards'});
  const isBound = (thing) => thing.caps?.length > 0 ||
    Object.values(thing.limits ?? {}).some((limit) => limit > 0);
  const subjects = [
    ...names.tenants.map((thing) => ({thing, kind: 'tenant', path: 'tenants', of: ''})),
    ...names.projects.map((thing) => ({thing, kind: 'project', path: 'projects',
      of: thing.tenant_name})),
    ...names.keys.filter((key) => key.state === 'active').map((thing) => ({thing, kind: 'key', path: 'keys',
      of: thing.tenant_name})),
  ];
  function show() {
    const shown = subjects.filter(({thing}) => box.querySelector('input').checked || isBound(thing));
    replace(list, shown.length === 0
      ? h('div', {class: 'empty'}, 'Nothing has a cap or a limit yet.')
      : shown.map(({thing, kind, path, of}) => h('div', {class: 'card'},
        h('div', {class: 'section-head'},
          h('h3', {}, thing.name, h('span', {class: 'hint'}, ` ${kind}${of && ` of ${of}`}`)),
          button('Edit', () => editBounds({api, currency, subject: thing, done: reload,
            path: `/admin/v1/${path}/${part(thing.id)}`,
            title: `Caps and limits of ${thing.name}`}), 'small',
          {'aria-label': `Edit caps and limits of ${kind} ${thing.name}`})),
        thing.caps?.length > 0 &&
          h('div', {class: 'caps'}, capsOf(thing).map((cap) => capBar(cap, currency))),
        h('p', {class: 'hint'}, `Limits: ${limitsInWords(thing.limits)}`))));
  }
  box.addEventListener('change', show);
  replace(main, section('Tenants, projects and keys', null, h('div', {class: 'filters'}, box), list));
  show();
}
