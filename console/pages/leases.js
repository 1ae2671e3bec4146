import {part} from '../api.js';
import {badge, button, code, h, newId, replace, section, table} from '../dom.js';
import {confirm, dialog, field, form} from '../forms.js';
import {money, time} from '../format.js';
import {optionsOf} from '../names.js';

const kPath = '/admin/v1/leases';
const kKinds = 6;  // of colours that tell neighbours in the bar apart

/** @param {import('../app.js').Context} context */
export async function showLeases(context) {
  const {main, api, isOperator, signal, currency, reload} = context;
  const tenants = isOperator ? await api.list('/admin/v1/tenants', signal) : [];
  const leases = isOperator ? await api.list(kPath, signal)
    : (await api.get('/v1/account', signal)).leases ?? [];
  const nameOf = (lease) => lease.tenant_name;
  const create = () => createLease(context, tenants);
  const running = leases.filter((lease) => lease.state === 'running');
  replace(main,
    section('The device now', null, shareBar(running, isOperator ? nameOf : () => 'leased by you')),
    section('Leases', isOperator && button('New lease', create, 'primary'), table({
      caption: 'Leases', rows: leases,
      empty: isOperator ? ['Nobody has leased a share of the device. ',
        button('New lease', create, 'primary')]
        : 'You have leased no share of the device. The operator can make you a lease.',
      columns: [
        {label: 'Id', cell: (lease) => code(lease.id)},
        ...(isOperator ? [{label: 'Tenant', cell: nameOf}] : []),
        {label: 'State', cell: (lease) => badge(lease.state, kStates[lease.state])},
        {label: 'Share', number: true, cell: (lease) => percent(lease.share)},
        {label: 'From', nowrap: true, cell: (lease) => time(lease.starts_at)},
        {label: 'Until', nowrap: true, cell: (lease) => time(lease.ends_at)},
        {label: `Per share-hour (${currency})`, number: true, cell: (lease) => money(lease.rate)},
        {label: `Charged (${currency})`, number: true, cell: (lease) => money(lease.amount)},
        ...(isOperator ? [{label: 'Actions', cell: (lease) => (
          ['running', 'upcoming'].includes(lease.state)
            ? button('Cancel', () => confirm('Cancel this lease?',
              `${nameOf(lease)} gets back what is not used of ${percent(lease.share)} until ` +
                `${time(lease.ends_at)}.`, 'Cancel the lease', async () => {
                await api.delete(`${kPath}/${part(lease.id)}`);
                reload();
              }), 'small danger', {'aria-label': `Cancel the lease of ${nameOf(lease)}`}) : '–')}] : []),
      ],
    })));
}

const kStates = {running: 'good', upcoming: '', ended: 'dim', cancelled: 'dim'};

const percent = (share) => `${Number((share * 100).toFixed(4))}%`;

/** Who has which share of the device's time now. */
function shareBar(leases, nameOf) {
  const total = leases.reduce((sum, lease) => sum + lease.share, 0);
  const free = Math.max(0, 1 - total);
  const bar = h('div', {class: 'bar wide', 'aria-hidden': 'true'}, leases.map((lease, i) => {
    const element = h('span', {class: `share-${i % kKinds}`});
    element.style.width = percent(lease.share);
    return element;
  }));
  const id = newId('share');
  return h('div', {class: 'card', role: 'group', 'aria-labelledby': id},
    h('p', {id, class: 'visually-hidden'}, 'Shares of the device’s time'), bar,
    h('ul', {class: 'legend'}, leases.map((lease, i) => h('li', {},
      h('span', {class: `swatch share-${i % kKinds}`}), `${nameOf(lease)}: ${percent(lease.share)}`)),
    h('li', {}, h('span', {class: 'swatch'}), `not leased: ${percent(free)}`)),
    h('p', {class: 'hint'}, 'What its holder leaves idle goes to whoever else has work.'));
}

function createLease({api, reload}, tenants) {
  const local = (unix) => new Date(unix * 1000).toISOString().slice(0, 16);
  const nextHour = Math.ceil(Date.now() / 3600000) * 3600;
  dialog('New lease', (close) => form({
    submit: 'Create', onCancel: close,
    fields: [
      h('p', {}, 'The whole period is charged now, at today’s price of a share-hour.'),
      field({name: 'tenant', label: 'Tenant', type: 'select', required: true,
        options: optionsOf(tenants)}),
      field({name: 'share', label: 'Share of the device (%)', type: 'number', required: true,
        attributes: {min: 0.0001, max: 100, step: 'any'}}),
      h('div', {class: 'columns'},
        field({name: 'starts_at', label: 'From (UTC)', type: 'datetime-local', required: true,
          value: local(nextHour)}),
        field({name: 'ends_at', label: 'Until (UTC)', type: 'datetime-local', required: true,
          value: local(nextHour + 86400)}))],
    onSubmit: async (said) => {
      const unix = (text) => Math.floor(Date.parse(`${text}Z`) / 1000);
      // Millionths of the device, without what division leaves in binary.
      const share = Math.round(Number(said.share) * 10000) / 1000000;
      await api.post(kPath, {tenant: said.tenant, share, starts_at: unix(said.starts_at),
        ends_at: unix(said.ends_at)});
      close();
      reload();
    },
  }));
}
