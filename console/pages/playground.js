import {Api, events} from '../api.js';
import {announce, button, definitions, h, replace} from '../dom.js';
import {field, values} from '../forms.js';
import {brief, count, duration, micros, moneyOfMicros} from '../format.js';

const kMaxTokensDefault = 512;

// An operator's own choice of key, while the page is open; never stored.
let borrowedKey = '';

/** @param {import('../app.js').Context} context */
export async function showPlayground(context) {
  const {main, signal, isOperator} = context;
  if (isOperator && !borrowedKey) {
    askForKey(context);
    return;
  }
  const api = isOperator ? new Api(borrowedKey) : context.api;
  let models;
  try {
    models = await api.list('/v1/models', signal);
  } catch (error) {
    if (!isOperator || error.status !== 401) throw error;
    borrowedKey = '';
    askForKey(context, 'The server does not know that key.');
    return;
  }
  if (models.length === 0) {
    replace(main, h('div', {class: 'empty'}, 'No model is loaded, or this key may use none of them.'));
    return;
  }
  show(context, api, models);
}

function askForKey(context, message = '') {
  const input = field({name: 'key', label: 'API key to use', type: 'password', required: true,
    hint: 'Requests run, and are billed, as this key’s tenant. It is kept until this page is closed.'});
  const error = h('p', {class: 'form-error', role: 'alert', hidden: !message}, message);
  const element = h('form', {class: 'narrow', onsubmit: (event) => {
    event.preventDefault();
    borrowedKey = values(element).key;
    if (borrowedKey) context.reload();
  }}, input, error, h('div', {class: 'actions'},
    h('button', {type: 'submit', class: 'button primary'}, 'Use this key')));
  replace(context.main, h('p', {}, 'The admin key does not pay for requests.'), element);
}

function show({main, signal, isOperator, reload, currency}, api, models) {
  const turns = [];  // {role, content} of the conversation so far
  const log = h('div', {class: 'conversation', role: 'log', 'aria-label': 'Conversation',
    tabindex: '0'}, h('p', {class: 'empty'}, 'The conversation appears here.'));
  const numbers = h('div', {class: 'answer-numbers'});
  const send = h('button', {type: 'submit', class: 'button primary'}, 'Send');
  const stop = button('Stop', () => running?.abort(), 'danger', {disabled: true});
  const message = field({name: 'message', label: 'Message', type: 'textarea', rows: 3,
    required: true, hint: 'Ctrl+Enter sends.'});
  let running = null;

  const element = h('form', {class: 'playground', novalidate: true},
    h('div', {class: 'settings'},
      field({name: 'model', label: 'Model', type: 'select',
        options: models.map((model) => [model.id, model.id])}),
      field({name: 'system', label: 'System message', type: 'textarea', rows: 3}),
      h('div', {class: 'columns'},
        field({name: 'temperature', label: 'Temperature', type: 'number', placeholder: 'default',
          attributes: {min: 0, max: 2, step: 'any'}}),
        field({name: 'max_tokens', label: 'Most tokens', type: 'number', value: kMaxTokensDefault,
          attributes: {min: 1, step: 1}})),
      isOperator && button('Use another key', () => { borrowedKey = ''; reload(); }, 'quiet')),
    h('div', {class: 'chat'}, log, numbers, message,
      h('div', {class: 'actions'}, send, stop, button('New conversation', () => {
        running?.abort();
        turns.length = 0;
        replace(log, h('p', {class: 'empty'}, 'The conversation appears here.'));
        replace(numbers);
        input.focus();
      }, 'quiet'))));
  replace(main, element);
  const input = message.querySelector('textarea');
  input.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) element.requestSubmit();
  });
  signal.addEventListener('abort', () => running?.abort());

  element.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (running) return;
    const said = values(element);
    const invalid = [...element.elements].find((each) => !each.checkValidity());
    if (invalid) {
      invalid.focus();
      invalid.reportValidity();
      return;
    }
    if (turns.length === 0) replace(log);
    turns.push({role: 'user', content: said.message});
    log.append(turn('You', said.message));
    input.value = '';
    running = new AbortController();
    send.disabled = true;
    stop.disabled = false;
    replace(numbers);
    try {
      await answer(said);
    } finally {
      running = null;
      send.disabled = false;
      stop.disabled = true;
      input.focus();
    }
  });

  async function answer(said) {
    const body = {model: said.model, messages: [
      ...(said.system ? [{role: 'system', content: said.system}] : []), ...turns],
    stream: true, stream_options: {include_usage: true}};
    if (said.temperature) body.temperature = Number(said.temperature);
    if (said.max_tokens) body.max_tokens = Number(said.max_tokens);

    const thinking = h('p', {class: 'thinking'});
    const thoughts = h('details', {class: 'reasoning', hidden: true}, h('summary', {}, 'Reasoning'),
      thinking);
    const text = h('p', {class: 'said'});
    const note = h('p', {class: 'hint'});
    const bubble = turn(said.model, thoughts, text, note);
    // Spoken when it is whole: token by token nobody can listen to it.
    bubble.setAttribute('aria-busy', 'true');
    log.append(bubble);

    const started = performance.now();
    let first = null;
    let finish = null;
    let usage = null;
    let id = null;
    try {
      const response = await api.ask('POST', '/v1/chat/completions', {body, signal: running.signal});
      for await (const event of events(response)) {
        if (event.error) throw new Error(event.error.message);
        usage = event.usage ?? usage;
        id = event.id ?? id;
        const choice = event.choices?.[0];
        if (!choice) continue;
        const {content, reasoning_content: reasoning} = choice.delta ?? {};
        if (content || reasoning) first ??= performance.now();
        if (reasoning) {
          thoughts.hidden = false;
          thinking.append(reasoning);
        }
        if (content) text.append(content);
        finish = choice.finish_reason ?? finish;
        log.scrollTop = log.scrollHeight;
      }
      if (finish === null) note.textContent = 'The answer was cut off: the server went away.';
      else if (finish === 'length') note.textContent = 'Ended at its limit of tokens, or at a cap.';
    } catch (error) {
      if (error.name === 'AbortError') {
        note.textContent = 'Stopped. What was generated until then is billed.';
      } else {
        note.className = 'form-error';
        replace(note, h('strong', {}, error.title ?? ''), error.message);
        announce(error.message);
      }
    }
    bubble.removeAttribute('aria-busy');
    if (text.textContent) turns.push({role: 'assistant', content: text.textContent});
    else turns.pop();  // unanswered; a second try does not ask twice
    await showNumbers({usage, id, started, first, finish, ended: performance.now()});
  }

  async function showNumbers({usage, id, started, first, finish, ended}) {
    const seconds = (ended - (first ?? started)) / 1000;
    const pairs = [['Time to first token', first === null ? '–' : duration(first - started)]];
    if (usage) {
      const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
      const generated = usage.completion_tokens ?? 0;
      pairs.push(
        ['Prompt tokens', `${count(usage.prompt_tokens)} (${count(cached)} cached)`],
        ['Generated tokens', count(generated)],
        ['Tokens per second', generated > 1 ? brief((generated - 1) / seconds) : '–'],
        ['Ended by', finish ?? '–']);
    }
    const amount = id === null ? null : await billed(api, id, signal);
    if (amount !== null) pairs.push(['Billed', `${moneyOfMicros(amount)} ${currency}`]);
    replace(numbers, definitions(pairs));
    announce('The answer is complete.');
  }
}

function turn(who, ...content) {
  return h('article', {class: `turn ${who === 'You' ? 'mine' : ''}`, 'aria-label': who},
    h('p', {class: 'speaker'}, who), content.map((each) => (
      typeof each === 'string' ? h('p', {class: 'said'}, each) : each)));
}

/**
 * What the ledger billed for it: the usage rows of that answer. It is posted before the last event
 * is sent; of one that was stopped it may take a moment, and null is the answer until then.
 */
async function billed(api, answerId, signal) {
  try {
    const rows = await api.list('/v1/usage/requests?limit=50', signal);
    const mine = rows.filter((row) => row.api_request_id === answerId);
    if (mine.length === 0) return null;
    return mine.reduce((total, row) => total + (micros(row.amount) ?? 0n), 0n);
  } catch {
    return null;  // a key without the scope "usage", or no ledger
  }
}
