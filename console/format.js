// Numbers, money and times as text.

const kMicros = 1000000n;
const counts = new Intl.NumberFormat('en-US', {maximumFractionDigits: 0});
const short = new Intl.NumberFormat('en-US', {maximumSignificantDigits: 3});

/** A count: 12,345. */
export const count = (value) => (value === null || value === undefined ? '–' : counts.format(value));

/** A measured value in three digits: 12.3, 4.56k, 1.2M. */
export function brief(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size >= 1e9) return `${short.format(value / 1e9)}G`;
  if (size >= 1e6) return `${short.format(value / 1e6)}M`;
  if (size >= 1e4) return `${short.format(value / 1e3)}k`;
  return short.format(value);
}

/**
 * Decimal text as whole micro-units, exactly; null for what is none. Money never becomes a
 * floating-point number where it is added up or shown.
 * @returns {bigint|null}
 */
export function micros(text) {
  const match = /^(-?)(\d+)(?:\.(\d{1,6}))?$/.exec(String(text ?? '').trim());
  if (!match) return null;
  const size = BigInt(match[2]) * kMicros + BigInt((match[3] ?? '').padEnd(6, '0'));
  return match[1] ? -size : size;
}

/** Micro-units as decimal text with at least two decimals: "1,234.50". */
export function moneyOfMicros(value) {
  const sign = value < 0n ? '−' : '';
  const size = value < 0n ? -value : value;
  const whole = (size / kMicros).toString().replace(/\B(?=(\d{3})+$)/g, ',');
  const part = (size % kMicros).toString().padStart(6, '0').replace(/0{1,4}$/, '');
  return `${sign}${whole}.${part}`;
}

/** Decimal text of the API, grouped; what is no number stays as it is. */
export function money(text, currency = '') {
  if (text === null || text === undefined) return '–';
  const value = micros(text);
  const shown = value === null ? String(text) : moneyOfMicros(value);
  return currency ? `${shown} ${currency}` : shown;
}

const pad = (value) => String(value).padStart(2, '0');

/** Unix seconds as a UTC date: 2026-11-03. */
export function date(unix) {
  if (!unix) return '–';
  const at = new Date(unix * 1000);
  return `${at.getUTCFullYear()}-${pad(at.getUTCMonth() + 1)}-${pad(at.getUTCDate())}`;
}

/** Unix seconds as date and time, UTC. */
export function time(unix) {
  if (!unix) return '–';
  const at = new Date(unix * 1000);
  return `${date(unix)} ${pad(at.getUTCHours())}:${pad(at.getUTCMinutes())}:${
    pad(at.getUTCSeconds())}`;
}

/** Seconds since the page began to look, for charts: "−2:30". */
export function ago(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  return whole === 0 ? 'now' : `−${Math.floor(whole / 60)}:${pad(whole % 60)}`;
}

/** Milliseconds: "85 ms", "1.25 s". */
export function duration(ms) {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return '–';
  return ms < 1000 ? `${short.format(ms)} ms` : `${short.format(ms / 1000)} s`;
}

const kNames = {
  on_demand: 'on demand', input_token: 'input tokens', cached_token: 'cached tokens',
  output_token: 'output tokens', inference: 'inferences', candidate: 'candidates',
  chip_second: 'chip-seconds', joule: 'joules', share_hour: 'share-hours',
};
/** A name of the API in words. */
export const words = (name) => kNames[name] ?? String(name ?? '–').replaceAll('_', ' ');

/** What a price of `unit` is for. */
export function perUnit(unit) {
  if (unit === 'chip_second' || unit === 'joule' || unit === 'share_hour')
    return `per ${unit.replace('_', '-')}`;
  return `per million ${words(unit)}`;
}
