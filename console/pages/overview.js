import {lineChart} from '../charts.js';
import {badge, definitions, failure, h, replace, section, table} from '../dom.js';
import {brief, count, duration, micros, money} from '../format.js';
import {flat, mean, rate, statsPath, totals} from '../stats.js';

const kPollMs = 2000;
const kPointsMax = 200;

// Kept while one looks at other pages, so that the charts go on where they were.
const history = {key: null, points: []};

/** @param {import('../app.js').Context} context */
export async function showOverview(context) {
  const {main, api, isOperator, signal, currency} = context;
  if (history.key !== context.key) Object.assign(history, {key: context.key, points: []});

  const tiles = new Map();
  const tile = (name, label) => {
    const value = h('dd', {}, '–');
    const note = h('dd', {class: 'hint'});
    tiles.set(name, {value, note});
    return h('div', {class: 'tile'}, h('dt', {}, label), value, note);
  };
  const set = (name, text, noteText = '') => {
    tiles.get(name).value.textContent = text;
    tiles.get(name).note.textContent = noteText;
  };
  const spendLabel = isOperator ? 'Revenue' : 'Spent today';
  const charts = [
    {chart: lineChart({title: 'Tokens per second', series: ['generated', 'prompt'], format: brief}),
      values: (point) => [point.generatedRate, point.promptRate]},
    {chart: lineChart({title: 'Time to first token', note: 'mean', series: ['time'],
      format: duration}),
    values: (point) => [point.ttftMs]},
    {chart: lineChart({title: 'Requests', series: ['running', 'waiting'], format: brief,
      isWhole: true}),
      values: (point) => [point.running, point.waiting]},
    {chart: lineChart({title: 'KV pages', series: ['in use', 'cached'], format: brief,
      isWhole: true}),
      values: (point) => [point.kvUsed, point.kvCached]},
    {chart: lineChart({title: spendLabel, note: currency, series: ['amount'], format: brief}),
      values: (point) => [point.spent]},
  ];
  const problem = h('div', {});
  const models = h('div', {});
  const books = h('div', {});
  replace(main, problem,
    h('dl', {class: 'tiles'},
      tile('tokens', 'Tokens per second'), tile('ttft', 'Time to first token'),
      tile('queue', 'Requests running'), tile('kv', 'KV pages in use'),
      tile('spend', `${spendLabel} (${currency})`),
      tile('money', isOperator ? `Held (${currency})` : `Available (${currency})`)),
    h('div', {class: 'charts'}, charts.map(({chart}) => chart.element)),
    section('Models', null, models), books);

  function show(stats) {
    const point = history.points.at(-1);
    set('tokens', brief(point.generatedRate), `${count(point.generated)} generated in all`);
    set('ttft', duration(point.ttftMs ?? point.ttftMeanMs),
      point.ttftMs === null ? 'mean since the start' : 'mean of the last seconds');
    set('queue', count(point.running), `${count(point.waiting)} waiting`);
    set('kv', count(point.kvUsed), `of ${count(point.kvTotal)}, ${count(point.kvCached)} cached`);
    set('spend', money(stats.spent), stats.spentNote);
    set('money', money(stats.available), stats.availableNote);
    for (const {chart, values} of charts)
      chart.update(history.points.map((each) => ({at: each.at, values: values(each)})));
    replace(models, modelTable(stats.models));
    replace(books, stats.books ?? []);
  }

  async function look() {
    const stats = read(await api.get(statsPath(isOperator), signal), isOperator, currency);
    const before = history.points.at(-1);
    const now = {at: performance.now() / 1000, ...totals(stats.models)};
    now.generatedRate = rate(before, now, 'generated');
    now.promptRate = rate(before, now, 'prompt');
    const ttft = mean(before, now, 'ttftSum', 'ttftCount');
    now.ttftMs = ttft === null ? null : ttft * 1000;
    now.ttftMeanMs = now.ttftCount > 0 ? now.ttftSum / now.ttftCount * 1000 : null;
    const spent = micros(stats.spent);
    now.spent = spent === null ? null : Number(spent) / 1e6;
    history.points = [...history.points, now].slice(-kPointsMax);
    show(stats);
  }

  async function poll() {
    if (signal.aborted) return;
    try {
      if (!document.hidden) await look();
      replace(problem);
    } catch (error) {
      if (signal.aborted) return;
      replace(problem, failure(error));
    }
    if (!signal.aborted) setTimeout(poll, kPollMs);
  }
  await look();
  setTimeout(poll, kPollMs);
}

function modelTable(models) {
  return table({
    caption: 'Models', rows: models, empty: 'No model is loaded.',
    columns: [
      {label: 'Model', cell: (model) => model.id},
      {label: 'Running', number: true, cell: (model) => count(model.requests_running)},
      {label: 'Waiting', number: true, cell: (model) => count(model.requests_waiting)},
      {label: 'Prompt tokens', number: true, cell: (model) => count(model.prompt_tokens)},
      {label: 'Generated tokens', number: true, cell: (model) => count(model.generated_tokens)},
      {label: 'KV pages used', number: true, cell: (model) => count(model.kv_pages_used)},
      {label: 'KV pages cached', number: true, cell: (model) => count(model.kv_pages_cached)},
      {label: 'KV pages', number: true, cell: (model) => count(model.kv_pages_total)},
    ],
  });
}

/** What both answers have, under the same names. */
function read(stats, isOperator, currency) {
  const models = (stats.models ?? []).map(flat);
  if (!isOperator) {
    return {models, spent: stats.spent, spentNote: `${count(stats.requests)} requests, ${
      count(stats.tokens)} tokens`, available: stats.available,
    availableNote: stats.available === null ? 'no bound' : 'credit and credit line'};
  }
  const all = stats.totals;
  if (!all) return {models, spent: null, available: null, books: noLedger()};
  const {ledger} = stats;
  return {
    models, spent: all.revenue, available: all.held,
    spentNote: `${money(all.spent?.day?.money)} today, ${money(all.spent?.month?.money)} this month`,
    availableNote: `for ${count(ledger?.open_holds)} requests`,
    books: section('Accounts', null, definitions([
      ['Tenants', count(all.tenants)], ['Projects', count(all.projects)],
      ['Active keys', count(all.active_keys)], ['Running leases', count(all.running_leases)],
      ['Credit of all tenants', money(all.credit, currency)],
      ['Tokens today', count(all.spent?.day?.tokens)],
      ['Ledger', ledger?.healthy ? badge('healthy', 'good')
        : badge('cannot write: new work is refused', 'bad')],
      ['Commits', `${count(ledger?.commits)}, ${count(ledger?.failed_commits)} failed`],
      ['Holds taken back at the start', count(ledger?.recovered_holds)]])),
  };
}

const noLedger = () => h('p', {class: 'hint'},
  'The server was started without --ledger: nothing is counted or billed.');
