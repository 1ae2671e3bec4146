import {query} from '../api.js';
import {announce, button, code, failure, h, replace, section, table} from '../dom.js';
import {time} from '../format.js';

const kPageSize = 50;

/** @param {import('../app.js').Context} context */
export async function showAudit({main, api, signal}) {
  const list = h('div', {});
  const verdict = h('div', {'aria-live': 'polite'});
  let starts = [0];  // what each page so far comes after

  async function show() {
    const entries = await api.list(
      `/admin/v1/audit${query({after: starts.at(-1) || '', limit: kPageSize})}`, signal);
    const isLast = entries.length < kPageSize;
    replace(list, table({
      caption: 'Audit log', rows: entries, empty: starts.length > 1 ? 'There is nothing newer.'
        : 'No administrative action was taken yet.',
      columns: [
        {label: 'Number', number: true, cell: (entry) => String(entry.number)},
        {label: 'When', nowrap: true, cell: (entry) => time(entry.at)},
        {label: 'Who', nowrap: true, cell: (entry) => entry.actor},
        {label: 'What', nowrap: true, cell: (entry) => entry.action},
        {label: 'Of', cell: (entry) => (entry.subject ? code(entry.subject) : '–')},
        {label: 'Details', cell: (entry) => detailsOf(entry)},
        {label: 'Hash', cell: (entry) => h('code', {title: entry.hash},
          String(entry.hash ?? '').slice(0, 12))},
      ],
    }), h('div', {class: 'actions'},
      button('Earlier', () => turn(() => starts.pop()), '', {disabled: starts.length < 2}),
      button('Later', () => turn(() => starts.push(entries.at(-1).number)), '', {disabled: isLast})));
    announce(`${entries.length} entries.`);
  }

  async function turn(change) {
    const before = [...starts];
    change();
    try {
      await show();
      list.querySelector('.scroll')?.focus();
    } catch (error) {
      starts = before;
      if (!signal.aborted) replace(list, failure(error, () => turn(() => {})));
    }
  }

  const verify = button('Verify the books', async () => {
    verify.disabled = true;
    replace(verdict, h('p', {class: 'notice'}, 'Adding up every posting…'));
    try {
      showVerdict(await api.post('/admin/v1/verify'));
    } catch (error) {
      if (!signal.aborted) replace(verdict, failure(error));
    } finally {
      verify.disabled = false;
    }
  }, 'primary');

  function showVerdict({ok, faults = []}) {
    replace(verdict, ok
      ? h('p', {class: 'notice good'}, h('strong', {}, 'The books balance. '),
        'Postings sum to zero, usage equals postings, no hold is left over, the log’s chain is whole.')
      : h('div', {class: 'notice bad'},
        h('p', {}, h('strong', {}, 'The books do not balance. '),
          'Stop serving, keep a copy of the ledger’s folder, and look at these:'),
        h('ul', {}, faults.map((fault) => h('li', {}, fault)))));
  }

  replace(main, section('The books', verify, verdict), section('Administrative actions', null, list));
  await show();
}

function detailsOf(entry) {
  const {details} = entry;
  if (!details) return '–';
  return h('code', {class: 'details'},
    typeof details === 'string' ? details : JSON.stringify(details));
}
