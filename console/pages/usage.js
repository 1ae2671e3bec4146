import {query, save} from '../api.js';
import {announce, button, code, h, replace, section, table} from '../dom.js';
import {field, form} from '../forms.js';
import {brief, count, date, micros, money, moneyOfMicros, time, words} from '../format.js';
import {loadNames, optionsOf} from '../names.js';
import {remember} from '../router.js';

const kGroups = ['day', 'model', 'tenant', 'project', 'key', 'tier'];
const kTokens = [['input_tokens', 'Input tokens'], ['cached_tokens', 'Cached tokens'],
  ['output_tokens', 'Output tokens']];
const kRowsShown = 50;

/** @param {import('../app.js').Context} context */
export async function showUsage(context) {
  const {main, api, isOperator, signal, parameters} = context;
  const base = isOperator ? '/admin/v1/usage' : '/v1/usage';
  const names = isOperator ? await loadNames(api, signal) : {of: (id) => id};
  const groups = kGroups.filter((each) => isOperator || each !== 'tenant');
  const chosen = (parameters.get('group_by') ?? 'day,model').split(',');
  const now = new Date();
  const monthStart = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), 1));
  const results = h('div', {});
  const recent = h('div', {});
  let asked = {};

  const filters = form({
    submit: 'Show',
    fields: [h('div', {class: 'filters'},
      field({name: 'from', label: 'From (UTC)', type: 'date',
        value: parameters.get('from') ?? date(monthStart / 1000)}),
      field({name: 'to', label: 'Through (UTC)', type: 'date',
        value: parameters.get('to') ?? date(now / 1000)}),
      isOperator && field({name: 'tenant', label: 'Tenant', type: 'select',
        options: optionsOf(names.tenants, 'all'), value: parameters.get('tenant')}),
      isOperator && field({name: 'key', label: 'Key', type: 'select',
        options: optionsOf(names.keys, 'all'), value: parameters.get('key')}),
      h('fieldset', {class: 'inline'}, h('legend', {}, 'Group by'),
        groups.map((each) => field({name: `by.${each}`, label: each, type: 'checkbox',
          value: chosen.includes(each)}))))],
    onSubmit: (said) => show(said),
  });

  /** What the API is asked, from what the form says: `to` is the first moment not counted. */
  function parametersOf(said) {
    const groupBy = groups.filter((each) => said[`by.${each}`]).join(',');
    const dayAfter = said.to && date(Date.parse(`${said.to}T00:00:00Z`) / 1000 + 86400);
    remember({from: said.from, to: said.to, tenant: said.tenant, key: said.key, group_by: groupBy});
    return {from: said.from, to: dayAfter, tenant: said.tenant, key: said.key, group_by: groupBy};
  }

  async function show(said) {
    asked = parametersOf(said);
    const same = {...asked, group_by: ''};
    const [report, requests] = await Promise.all([
      api.get(base + query(asked), signal),
      api.list(`${base}/requests${query({...same, limit: kRowsShown})}`, signal)]);
    replace(results, usageTable(report));
    replace(recent, requestTable(requests, names));
    announce(`${report.data.length} rows of usage.`);
  }

  const exportAs = (format) => button(`Export ${format.toUpperCase()}`, async () => {
    const response = await api.ask('GET', base + query({...asked, format}), {signal});
    await save(response, `usage-${asked.from || 'start'}.${format}`);
    announce(`Saved as ${format.toUpperCase()}.`);
  });

  replace(main, filters,
    section('Usage', [exportAs('csv'), exportAs('json')], results),
    section('Newest requests', null, recent));
  await show(Object.fromEntries([...filters.elements].filter((each) => each.name).map(
    (each) => [each.name, each.type === 'checkbox' ? each.checked : each.value])));
}

/** What a row is grouped by, as names. */
function groupCell(group) {
  return (row) => {
    if (group === 'tier') return words(row.tier);
    if (group === 'day') return row.day;
    if (group === 'model') return row.model || '–';
    return row[`${group}_name`] ?? '–';
  };
}

function usageTable(report) {
  const rows = report.data;
  const groups = report.group_by ?? [];
  const total = (name) => count(rows.reduce((sum, row) => sum + (row[name] ?? 0), 0));
  const amount = rows.reduce((sum, row) => sum + (micros(row.amount) ?? 0n), 0n);
  const hasEnergy = rows.some((row) => row.energy_source && row.energy_source !== 'none');
  const columns = [
    ...(groups.length === 0 ? [{label: 'Period', cell: () => 'all'}]
      : groups.map((group) => ({label: group[0].toUpperCase() + group.slice(1),
        cell: groupCell(group)}))),
    {label: 'Requests', number: true, cell: (row) => count(row.requests)},
    ...kTokens.map(([name, label]) => ({label, number: true, cell: (row) => count(row[name])})),
    ...(hasEnergy ? [
      {label: 'Energy (J)', number: true, cell: (row) => `${brief(row.energy_j)} ${row.energy_source}`},
      {label: 'gCO₂e', number: true, cell: (row) => row.gco2e}] : []),
    {label: `Amount (${report.currency ?? ''})`, number: true, cell: (row) => money(row.amount)},
  ];
  const foot = ['Total', ...Array(Math.max(0, groups.length - 1)).fill(''), total('requests'),
    ...kTokens.map(([name]) => total(name)), ...(hasEnergy ? ['', ''] : []), moneyOfMicros(amount)];
  return table({caption: 'Usage', columns, rows, foot,
    empty: 'Nothing was used in this time. Choose other dates, or send a request in the playground.'});
}

function requestTable(requests, names) {
  return table({
    caption: 'Newest requests', rows: requests, empty: 'No request in this time.',
    columns: [
      {label: 'Request', cell: (row) => code(row.api_request_id || row.request_id)},
      {label: 'When', nowrap: true, cell: (row) => time(row.posted_at)},
      {label: 'Model', cell: (row) => row.model || '–'},
      {label: 'Key', cell: (row) => names.of(row.key)},
      {label: 'Tier', nowrap: true, cell: (row) => words(row.tier)},
      ...kTokens.map(([name, label]) => ({label, number: true,
        cell: (row) => count(row.quantities?.[name.slice(0, -1)])})),
      {label: 'Ended by', cell: (row) => words(row.reason)},
      {label: 'Amount', number: true, cell: (row) => money(row.amount)},
    ],
  });
}
