// What the server counts, and how fast it grows.

const kShortestS = 0.5;  // less says nothing about a rate

/** The same for a tenant (/v1/stats) and the operator (/admin/v1/overview). */
export const statsPath = (isOperator) => (isOperator ? '/admin/v1/overview' : '/v1/stats');

/** A model's counters: the operator's answer has them in `stats`, beside how it was loaded. */
export const flat = (model) => ({...model, ...model.stats});

const sum = (models, value) => models.reduce((total, model) => total + (value(model) ?? 0), 0);

/** Sums over all models. @returns {Object<string, number>} */
export function totals(models) {
  return {
    running: sum(models, (model) => model.requests_running),
    waiting: sum(models, (model) => model.requests_waiting),
    generated: sum(models, (model) => model.generated_tokens),
    prompt: sum(models, (model) => model.prompt_tokens),
    kvUsed: sum(models, (model) => model.kv_pages_used),
    kvCached: sum(models, (model) => model.kv_pages_cached),
    kvTotal: sum(models, (model) => model.kv_pages_total),
    ttftSum: sum(models, (model) => model.ttft?.sum),
    ttftCount: sum(models, (model) => model.ttft?.count),
    tokenSum: sum(models, (model) => model.inter_token?.sum),
    tokenCount: sum(models, (model) => model.inter_token?.count),
  };
}

/**
 * Growth of a counter per second; null where there is nothing to compare, or where a counter went
 * back because the server, or a model, was started again.
 */
export function rate(before, now, name) {
  if (!before || now.at - before.at < kShortestS || now[name] < before[name]) return null;
  return (now[name] - before[name]) / (now.at - before.at);
}

/** The mean of what a histogram took in between two looks; null where that is nothing. */
export function mean(before, now, sumName, countName) {
  if (!before || now[countName] <= before[countName] || now[sumName] < before[sumName]) return null;
  return (now[sumName] - before[sumName]) / (now[countName] - before[countName]);
}
