// Talks to the server that served this page, and to nobody else.

/** What the server, or the way to it, had to say. `status` is 0 where there was no answer. */
export class ApiError extends Error {
  constructor(status, message, {code = null, param = null} = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
    if (status === 0) {
      this.title = 'The server does not answer. ';
      this.advice = 'Check that it is running; then try again.';
    } else if (status === 429) {
      this.title = 'Refused for now. ';
    } else if (status === 403) {
      this.title = 'This key may not do that. ';
    } else if (status === 503) {
      this.title = 'Not available at the moment. ';
    }
  }
}

async function errorOf(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // Not ours: a proxy's page.
  }
  const message = error.message ?? `The server answered ${response.status}.`;
  return new ApiError(response.status, message, error);
}

export class Api {
  /**
   * @param {string} key sent as a bearer token
   * @param {function(): void} [onUnauthorized] called when the server does not know the key
   */
  constructor(key, onUnauthorized = () => {}) {
    this.key = key;
    this.onUnauthorized = onUnauthorized;
  }

  /**
   * The answer, if it is a good one. Errors: ApiError; AbortError.
   * @returns {Promise<Response>}
   */
  async ask(method, path, {body, signal} = {}) {
    const headers = {authorization: `Bearer ${this.key}`};
    if (body !== undefined) headers['content-type'] = 'application/json';
    let response;
    try {
      response = await fetch(path, {
        method, headers, signal, cache: 'no-store', credentials: 'omit', redirect: 'error',
        body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new ApiError(0, '');
    }
    if (response.ok) return response;
    if (response.status === 401) this.onUnauthorized();
    throw await errorOf(response);
  }

  async json(method, path, options) {
    const response = await this.ask(method, path, options);
    try {
      return await response.json();
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new ApiError(0, '');  // the answer was cut off
    }
  }

  get(path, signal) { return this.json('GET', path, {signal}); }
  post(path, body = {}) { return this.json('POST', path, {body}); }
  patch(path, body) { return this.json('PATCH', path, {body}); }
  delete(path) { return this.json('DELETE', path); }
  /** The rows of a list. */
  async list(path, signal) { return (await this.get(path, signal)).data ?? []; }
}

/** 'a=1&b=x%20y' of what is set. */
export function query(parameters) {
  const set = Object.entries(parameters).filter(([, value]) => value !== '' && value != null);
  return set.length === 0 ? '' : `?${new URLSearchParams(set)}`;
}

/** A part of a path. */
export const part = encodeURIComponent;

/**
 * The JSON of each event of a server-sent event stream, until [DONE].
 * (HTML Living Standard, section 9.2.6: lines end with CR, LF or both; an empty line ends an event.)
 * @param {Response} response
 * @returns {AsyncGenerator<Object>}
 */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = '';
  let data = [];
  try {
    for (;;) {
      const {done, value} = await reader.read();
      if (done) return;
      buffer += value;
      // A CR at the very end may be the first half of a CR LF.
      for (let end; (end = buffer.search(/\r\n|\n|\r(?!$)/)) >= 0;) {
        const line = buffer.slice(0, end);
        buffer = buffer.slice(end + (buffer.startsWith('\r\n', end) ? 2 : 1));
        if (line.startsWith('data:')) {
          data.push(line.slice(line[5] === ' ' ? 6 : 5));
        } else if (line === '' && data.length > 0) {
          const text = data.join('\n');
          data = [];
          if (text === '[DONE]') return;
          yield JSON.parse(text);
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Lets the browser save `bytes` as a file. */
export async function save(response, name) {
  const blob = new Blob([await response.arrayBuffer()], {type: 'application/octet-stream'});
  const url = URL.createObjectURL(blob);
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
