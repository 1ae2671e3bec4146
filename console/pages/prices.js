import {announce, badge, button, h, replace, section, table} from '../dom.js';
import {dialog, field, form} from '../forms.js';
import {money, perUnit, time, words} from '../format.js';

const kPath = '/admin/v1/prices';
const kTiers = ['on_demand', 'priority', 'batch', 'lease'];
const kUnits = ['input_token', 'cached_token', 'output_token', 'inference', 'candidate',
  'chip_second', 'joule', 'share_hour'];

const kStates = {upcoming: ['to come'], current: ['in force', 'good'], past: ['replaced', 'dim']};

/** @param {import('../app.js').Context} context */
export async function showPrices(context) {
  const {main, api, isOperator, signal, currency} = context;
  const list = h('div', {});
  const all = field({name: 'all', label: 'Show earlier and coming versions', type: 'checkbox'});
  const box = all.querySelector('input');

  async function show() {
    const prices = isOperator ? await api.list(kPath + (box.checked ? '?all=1' : ''), signal)
      : (await api.get('/v1/account', signal)).prices ?? [];
    replace(list, table({
      caption: 'Prices', rows: prices, empty: isOperator
        ? 'There is no price. Work without a price is refused: add one.' : 'No price is set.',
      columns: [
        {label: 'Model', cell: (price) => (price.model === '*' ? 'every other model' : price.model)},
        {label: 'Tier', cell: (price) => words(price.tier)},
        {label: 'For', cell: (price) => perUnit(price.unit)},
        {label: `Price (${currency})`, number: true, cell: (price) => money(price.rate)},
        ...(isOperator ? [
          {label: 'From', nowrap: true, cell: (price) => time(price.effective_at)},
          {label: 'State', cell: (price) => badge(...kStates[price.state] ?? [price.state])}] : []),
      ],
    }));
  }
  box.addEventListener('change', () => show().catch((error) => announce(error.message)));
  replace(main, section('Price book',
    isOperator && button('New price', () => addPrice(context), 'primary'),
    isOperator && h('div', {class: 'filters'}, all), list,
    h('p', {class: 'hint'}, 'A model’s own price goes before that of every other model. Versions are ' +
      'kept: an invoice prints the same for ever.')));
  await show();
}

function addPrice({api, currency, reload}) {
  dialog('New price', (close) => form({
    submit: 'Add', onCancel: close,
    fields: [
      field({name: 'model', label: 'Model', required: true, value: '*',
        hint: 'A model’s name, or * for every model without a price of its own.'}),
      h('div', {class: 'columns'},
        field({name: 'tier', label: 'Tier', type: 'select',
          options: kTiers.map((tier) => [tier, words(tier)])}),
        field({name: 'unit', label: 'Unit', type: 'select',
          options: kUnits.map((unit) => [unit, perUnit(unit)])})),
      field({name: 'rate', label: `Price (${currency})`, required: true,
        attributes: {inputmode: 'decimal'}}),
      field({name: 'effective_at', label: 'From (UTC)', type: 'datetime-local',
        hint: 'Empty: from now on. Never in the past.'})],
    onSubmit: async (said) => {
      const {effective_at: from, ...rest} = said;
      await api.post(kPath, {...rest,
        ...(from ? {effective_at: Math.floor(Date.parse(`${from}Z`) / 1000)} : {})});
      close();
      reload();
    },
  }));
}
