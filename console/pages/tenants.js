import {part} from '../api.js';
import {announce, badge, button, code, definitions, h, replace, section, table} from '../dom.js';
import {boundsFields, capBar, capsInWords, capsOf, editBounds, limitsInWords, readBounds} from '../bounds.js';
import {confirm, dialog, field, form} from '../forms.js';
import {date, money, time} from '../format.js';
import {to} from '../router.js';

const kPath = '/admin/v1/tenants';
const kCreditLineHint = 'How far the credit may go below zero. 0: prepaid. Empty: no bound.';

/** Who the tenants are. @param {import('../app.js').Context} context */
export async function showTenants(context) {
  const {main, api, signal, currency, reload} = context;
  const tenants = await api.list(kPath, signal);
  replace(main, section('All tenants', button('New tenant', () => createTenant(context), 'primary'),
    table({
      caption: 'Tenants', rows: tenants,
      empty: ['There is no tenant yet. A tenant is who pays: ',
        button('New tenant', () => createTenant(context), 'primary')],
      columns: [
        {label: 'Name', cell: (tenant) => h('a', {href: to('tenants', tenant.id)}, tenant.name)},
        {label: 'State', cell: stateBadge},
        {label: `Credit (${currency})`, number: true, cell: (tenant) => money(tenant.credit)},
        {label: 'Held', number: true, cell: (tenant) => money(tenant.held)},
        {label: 'Credit line', number: true, cell: creditLine},
        {label: 'Spent this month', number: true,
          cell: (tenant) => money(tenant.spent?.month?.money)},
        {label: 'Caps', cell: (tenant) => capsInWords(tenant.caps, currency)},
        {label: 'Since', nowrap: true, cell: (tenant) => date(tenant.created_at)},
        {label: 'Actions', cell: (tenant) => h('div', {class: 'row'},
          button('Add credit', () => addCredit(context, tenant, reload), 'small',
            {'aria-label': `Add credit to ${tenant.name}`}))},
      ],
    })));
}

const stateBadge = (tenant) => (
  tenant.suspended ? badge('suspended', 'bad') : badge('active', 'good'));
const creditLine = (tenant) => (
  tenant.credit_line === null ? 'no bound' : money(tenant.credit_line));

/** One of them, with its projects. @param {import('../app.js').Context} context */
export async function showTenant(context) {
  const {main, heading, api, parts, signal, currency, reload} = context;
  const path = `${kPath}/${part(parts[0])}`;
  const [tenant, projects, keys] = await Promise.all([
    api.get(path, signal), api.list(`/admin/v1/projects?tenant=${part(parts[0])}`, signal),
    api.list(`/admin/v1/keys?tenant=${part(parts[0])}`, signal)]);
  heading.textContent = tenant.name;
  document.title = `${tenant.name} · Millpower`;
  const mine = projects.filter((project) => project.tenant === tenant.id);
  const keyCount = (project) => keys.filter((key) => key.project === project.id).length;
  replace(main,
    h('p', {}, h('a', {href: to('tenants')}, 'All tenants')),
    section('Account', [
      button('Add credit', () => addCredit(context, tenant, reload), 'primary'),
      button('Credit line', () => editCreditLine(context, path, tenant)),
      button('Caps and limits', () => editBounds({api, path, currency, subject: tenant,
        title: `Caps and limits of ${tenant.name}`, done: reload})),
      tenant.suspended
        ? button('Resume', async () => suspend(context, path, tenant, false))
        : button('Suspend', () => confirm(`Suspend ${tenant.name}?`,
          'Its keys are refused from now on. Requests that run go on to their end.', 'Suspend',
          () => suspend(context, path, tenant, true)), 'danger')],
    definitions([
      ['State', stateBadge(tenant)], ['Id', code(tenant.id)],
      ['Credit', money(tenant.credit, currency)], ['Held', money(tenant.held, currency)],
      ['Credit line', creditLine(tenant)],
      ['Spent today', money(tenant.spent?.day?.money, currency)],
      ['Spent this month', money(tenant.spent?.month?.money, currency)],
      ['Spent in all', money(tenant.spent?.total?.money, currency)],
      ['Limits', limitsInWords(tenant.limits)], ['Since', time(tenant.created_at)]])),
    tenant.caps?.length > 0 && section('Caps', null,
      h('div', {class: 'caps'}, capsOf(tenant).map((cap) => capBar(cap, currency)))),
    section('Projects', button('New project', () => createProject(context, tenant), 'primary'),
      table({
        caption: `Projects of ${tenant.name}`, rows: mine, empty: 'It has no project.',
        columns: [
          {label: 'Name', cell: (project) => project.name},
          {label: 'Id', cell: (project) => code(project.id)},
          {label: 'Keys', number: true, cell: keyCount},
          {label: 'Caps', cell: (project) => capsInWords(project.caps, currency)},
          {label: 'Limits', cell: (project) => limitsInWords(project.limits)},
          {label: 'Since', nowrap: true, cell: (project) => date(project.created_at)},
          {label: 'Actions', cell: (project) => h('div', {class: 'row'},
            button('Rename', () => renameProject(context, project), 'small',
              {'aria-label': `Rename ${project.name}`}),
            button('Caps and limits', () => editBounds({api, currency, subject: project,
              path: `/admin/v1/projects/${part(project.id)}`,
              title: `Caps and limits of ${project.name}`, done: reload}), 'small',
            {'aria-label': `Caps and limits of ${project.name}`}))},
        ],
      })),
    h('p', {class: 'row'}, h('a', {href: `${to('keys')}?tenant=${part(tenant.id)}`}, 'Its keys'),
      h('a', {href: `${to('usage')}?tenant=${part(tenant.id)}`}, 'Its usage'),
      h('a', {href: `${to('invoices')}?tenant=${part(tenant.id)}`}, 'Its invoices')));
}

async function suspend({api, reload}, path, tenant, suspended) {
  await api.patch(path, {suspended});
  announce(`${tenant.name} is ${suspended ? 'suspended' : 'active again'}.`);
  reload();
}

const creditLineOf = (text) => (text === '' ? null : text);

function createTenant({api, currency, reload}) {
  dialog('New tenant', (close) => form({
    submit: 'Create', onCancel: close,
    fields: [
      field({name: 'name', label: 'Name', required: true}),
      field({name: 'credit_line', label: `Credit line (${currency})`, value: '0.00',
        hint: kCreditLineHint, attributes: {inputmode: 'decimal'}}),
      ...boundsFields({}, currency)],
    onSubmit: async (said) => {
      const tenant = await api.post(kPath, {name: said.name,
        credit_line: creditLineOf(said.credit_line), ...readBounds(said)});
      close();
      announce(`${tenant.name} is there.`);
      reload();
    },
  }));
}

function editCreditLine({api, currency, reload}, path, tenant) {
  dialog(`Credit line of ${tenant.name}`, (close) => form({
    submit: 'Save', onCancel: close,
    fields: [field({name: 'credit_line', label: `Credit line (${currency})`, hint: kCreditLineHint,
      value: tenant.credit_line ?? '', attributes: {inputmode: 'decimal'}})],
    onSubmit: async (said) => {
      await api.patch(path, {credit_line: creditLineOf(said.credit_line)});
      close();
      reload();
    },
  }));
}

function addCredit({api, currency}, tenant, done) {
  dialog(`Credit for ${tenant.name}`, (close) => form({
    submit: 'Add credit', onCancel: close,
    fields: [
      h('p', {}, `It has ${money(tenant.credit, currency)}.`),
      field({name: 'amount', label: `Amount (${currency})`, required: true,
        hint: 'A negative amount pays back.', attributes: {inputmode: 'decimal'}}),
      field({name: 'reference', label: 'Reference', required: true,
        hint: 'Of the payment, for instance a receipt’s number. The same reference counts once.'})],
    onSubmit: async ({amount, reference}) => {
      await api.post(`${kPath}/${part(tenant.id)}/credit`, {amount, reference});
      close();
      announce(`Credit of ${tenant.name} changed.`);
      done();
    },
  }));
}

function createProject({api, currency, reload}, tenant) {
  dialog(`New project of ${tenant.name}`, (close) => form({
    submit: 'Create', onCancel: close,
    fields: [field({name: 'name', label: 'Name', required: true}), ...boundsFields({}, currency)],
    onSubmit: async (said) => {
      await api.post('/admin/v1/projects', {tenant: tenant.id, name: said.name, ...readBounds(said)});
      close();
      reload();
    },
  }));
}

function renameProject({api, reload}, project) {
  dialog(`Rename ${project.name}`, (close) => form({
    submit: 'Save', onCancel: close,
    fields: [field({name: 'name', label: 'Name', required: true, value: project.name})],
    onSubmit: async ({name}) => {
      await api.patch(`/admin/v1/projects/${part(project.id)}`, {name});
      close();
      reload();
    },
  }));
}
