// Caps and limits, which tenants, projects and keys alike have.
import {h, newId} from './dom.js';
import {dialog, field, form} from './forms.js';
import {count, micros, money, moneyOfMicros} from './format.js';

const kPeriods = ['day', 'month', 'total'];
const kMeasures = ['money', 'tokens'];
const kLimits = [['requests_per_minute', 'Requests per minute'],
  ['tokens_per_minute', 'Tokens per minute'],
  ['concurrent_requests', 'Requests at a time']];
const kPeriodNames = {day: 'Today', month: 'This month', total: 'In all'};  // of what is used
const kEachPeriod = {day: 'Each day', month: 'Each month', total: 'In all'};  // of what is set

const whole = (cap, value) => (cap.measure === 'money' ? micros(value) : BigInt(value ?? 0)) ?? 0n;
const shown = (cap, value) => (cap.measure === 'money' ? moneyOfMicros(value) : count(value));

/**
 * How much of a cap is gone: a bar, and the same in words.
 * @param {{period: string, measure: string, limit: *, used?: *, held?: *}} cap
 */
export function capBar(cap, currency = '') {
  const [limit, used, held] = [cap.limit, cap.used, cap.held].map((value) => whole(cap, value));
  const percent = (value) => (limit > 0n ? Number(value * 1000n / limit) / 10 : 100);
  const usedPart = Math.min(100, Math.max(0, percent(used)));
  const heldPart = Math.min(100 - usedPart, Math.max(0, percent(held)));
  const unit = cap.measure === 'money' ? ` ${currency}` : ' tokens';
  const full = usedPart + heldPart;
  const id = newId('cap');
  const bar = h('div', {class: `bar ${full >= 100 ? 'full' : full >= 80 ? 'high' : ''}`,
    role: 'meter', 'aria-labelledby': id, 'aria-valuemin': 0, 'aria-valuemax': 100,
    'aria-valuenow': Math.round(full)},
  segment('used', usedPart), segment('held', heldPart));
  return h('div', {class: 'cap'},
    h('div', {class: 'cap-text', id},
      h('span', {}, `${kPeriodNames[cap.period] ?? cap.period}, ${cap.measure}`),
      h('span', {class: 'number'}, `${shown(cap, used)} used`,
        held > 0n && ` + ${shown(cap, held)} held`, ` of ${shown(cap, limit)}${unit}`)),
    bar);
}

function segment(kind, percent) {
  const element = h('span', {class: kind});
  element.style.width = `${percent}%`;
  return element;
}

/** A subject's caps with what is used of them, which may stand apart in `spent`. */
export const capsOf = (subject) => (subject.caps ?? []).map(
  (cap) => ({used: subject.spent?.[cap.period]?.[cap.measure], ...cap}));

/** "5.00 USD a month, 1,000 tokens a day". */
export function capsInWords(caps, currency = '') {
  if (!caps?.length) return '–';
  const per = {day: 'a day', month: 'a month', total: 'in all'};
  return caps.map((cap) => (cap.measure === 'money'
    ? `${money(cap.limit, currency)} ${per[cap.period]}`
    : `${count(cap.limit)} tokens ${per[cap.period]}`)).join(', ');
}

/** "60 requests per minute, 2 requests at a time". */
export function limitsInWords(limits) {
  const set = kLimits.filter(([name]) => limits?.[name]);
  return set.length === 0 ? '–'
    : set.map(([name, label]) => `${count(limits[name])} ${label.toLowerCase()}`).join(', ');
}

/** The fields for both, named "cap.day.money" and "limit.requests_per_minute". */
export function boundsFields({caps = [], limits = {}} = {}, currency = '') {
  const capField = (period, measure) => field({
    name: `cap.${period}.${measure}`,
    label: measure === 'money' ? `Money (${currency})` : 'Tokens',
    value: caps.find((cap) => cap.period === period && cap.measure === measure)?.limit,
    placeholder: 'no cap',
    attributes: {inputmode: measure === 'money' ? 'decimal' : 'numeric'},
  });
  return [
    h('fieldset', {}, h('legend', {}, 'Caps'),
      h('p', {class: 'hint'}, 'Never exceeded, whatever runs at once. Empty: no cap.'),
      kPeriods.map((period) => h('div', {class: 'cap-fields', role: 'group',
        'aria-label': kEachPeriod[period]},
      h('span', {class: 'cap-period', 'aria-hidden': 'true'}, kEachPeriod[period]),
      kMeasures.map((measure) => capField(period, measure))))),
    h('fieldset', {}, h('legend', {}, 'Limits'),
      h('div', {class: 'columns'}, kLimits.map(([name, label]) => field({
        name: `limit.${name}`, label, type: 'number', value: limits?.[name] || '',
        placeholder: 'no limit', attributes: {min: 1, step: 1},
      })))),
  ];
}

/** What the API takes, from the values of such fields. Errors: Error, with the field as `param`. */
export function readBounds(said) {
  const refuse = (param, message) => { throw Object.assign(new Error(message), {param}); };
  const caps = [];
  for (const period of kPeriods) {
    for (const measure of kMeasures) {
      const name = `cap.${period}.${measure}`;
      const text = said[name];
      if (!text) continue;
      if (measure === 'money') {
        if ((micros(text) ?? -1n) < 0n)
          refuse(name, 'a cap in money is an amount like 5.00, with at most six decimals');
        caps.push({period, measure, limit: text});
      } else {
        if (!/^\d{1,15}$/.test(text)) refuse(name, 'a cap in tokens is a whole number');
        caps.push({period, measure, limit: Number(text)});
      }
    }
  }
  const limits = {};
  for (const [name] of kLimits) {
    const text = said[`limit.${name}`];
    if (text && !/^\d{1,15}$/.test(text)) refuse(`limit.${name}`, 'a limit is a whole number');
    limits[name] = text ? Number(text) : 0;
  }
  return {caps, limits};
}

/** A dialog that edits the bounds of `subject`, at `path`. */
export function editBounds({api, path, title, subject, currency, done}) {
  dialog(title, (close) => form({
    fields: boundsFields(subject, currency), submit: 'Save', onCancel: close,
    onSubmit: async (said) => {
      await api.patch(path, readBounds(said));
      close();
      done();
    },
  }));
}
