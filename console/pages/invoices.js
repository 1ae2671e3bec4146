import {part, query, save} from '../api.js';
import {announce, badge, button, code, definitions, h, replace, section, table} from '../dom.js';
import {field} from '../forms.js';
import {count, date, money, words} from '../format.js';
import {optionsOf} from '../names.js';
import {remember, to} from '../router.js';

const kFormats = [['json', 'JSON'], ['text', 'text'], ['html', 'HTML']];
const kEndings = {json: 'json', text: 'txt', html: 'html'};

/** @param {import('../app.js').Context} context */
export async function showInvoices(context) {
  const {main, api, isOperator, signal, parameters, currency} = context;
  const tenants = isOperator ? await api.list('/admin/v1/tenants', signal) : [];
  const list = h('div', {});
  const tenant = field({name: 'tenant', label: 'Tenant', type: 'select',
    options: optionsOf(tenants, 'all tenants'), value: parameters.get('tenant') ?? ''});
  const select = tenant.querySelector('select');

  async function show() {
    remember({tenant: select.value});
    const invoices = await api.list(isOperator
      ? `/admin/v1/invoices${query({tenant: select.value})}` : '/v1/invoices', signal);
    replace(list, table({
      caption: 'Invoices', rows: invoices,
      empty: 'Nothing has been used yet, so there is no invoice.',
      columns: [
        {label: 'Month', cell: (invoice) => h('a', {
          href: isOperator ? to('invoices', invoice.tenant, invoice.month)
            : to('invoices', invoice.month)},
        invoice.month, isOperator && h('span', {class: 'visually-hidden'}, `, ${invoice.tenant_name}`))},
        ...(isOperator ? [{label: 'Tenant', cell: (invoice) => invoice.tenant_name}] : []),
        {label: 'State', cell: stateBadge},
        {label: `Total (${currency})`, number: true, cell: (invoice) => money(invoice.total)},
      ],
    }));
  }
  select.addEventListener('change', () => show().catch((error) => announce(error.message)));
  replace(main, section('Invoices by month', null,
    isOperator && h('div', {class: 'filters'}, tenant), list));
  await show();
}

const stateBadge = (invoice) => (
  invoice.open || invoice.status === 'open' ? badge('running month', 'warn') : badge('final', 'good'));

/** One invoice, made from its JSON. @param {import('../app.js').Context} context */
export async function showInvoice(context) {
  const {main, heading, api, isOperator, parts, signal} = context;
  const month = parts.at(-1);
  const path = isOperator ? `/admin/v1/invoices/${parts.slice(0, 2).map(part).join('/')}`
    : `/v1/invoices/${part(month)}`;
  const invoice = await api.get(path, signal);
  const currency = invoice.currency ?? context.currency;
  heading.textContent = `Invoice ${invoice.id ?? month}`;
  const download = ([format, label]) => button(`Download ${label}`, async () => {
    const response = await api.ask('GET', `${path}?format=${format}`, {signal});
    await save(response, `invoice-${invoice.id ?? month}.${kEndings[format]}`);
    announce(`Saved as ${label}.`);
  });
  replace(main,
    h('p', {class: 'no-print'}, h('a', {href: to('invoices')}, 'All invoices')),
    section(month, [kFormats.map(download), button('Print', () => window.print())],
      definitions([
        ['Tenant', invoice.tenant.name], ['State', stateBadge(invoice)],
        ['From', date(invoice.from)], ['Until', date(invoice.to)],
        ['Total', money(invoice.total, currency)]]),
      table({
        caption: `Lines of invoice ${invoice.id ?? month}`, rows: invoice.lines ?? [],
        empty: 'Nothing was used in this month.',
        columns: [
          {label: 'Project', cell: (line) => line.project_name ?? '–'},
          {label: 'Model', cell: (line) => line.model || '–'},
          {label: 'Tier', nowrap: true, cell: (line) => words(line.tier)},
          {label: 'Quantity', number: true, cell: (line) => `${count(line.quantity)} ${words(line.unit)}`},
          {label: `Price (${currency})`, number: true, cell: (line) => (
            `${money(line.rate)} per ${line.rate_per}`)},
          {label: 'Requests', number: true, cell: (line) => count(line.requests)},
          {label: 'First and last request', cell: (line) => [code(line.first_request_id ?? ''), h('br'),
            code(line.last_request_id ?? '')]},
          {label: `Amount (${currency})`, number: true, cell: (line) => money(line.amount)},
        ],
        foot: ['Total', '', '', '', '', '', '', money(invoice.total)],
      })));
}
