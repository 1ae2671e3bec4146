// Elements from plain calls. Text becomes text nodes and nothing else: no function here takes markup.

/** @typedef {Node|string|number|null|undefined|false} Child */

const kSvg = 'http://www.w3.org/2000/svg';

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'value' || name === 'checked' || name === 'selected') element[name] = value;
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity))
    if (child !== null && child !== undefined && child !== false)
      element.append(child instanceof Node ? child : String(child));
}

/**
 * h('td', {class: 'number', onclick: handler}, 'text', otherElement)
 * @param {string} tag
 * @param {Object<string, *>} [properties] attributes; "on..." are listeners
 * @param {...(Child|Child[])} children
 * @returns {HTMLElement}
 */
export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for SVG. @returns {SVGElement} */
export function svg(tag, properties, ...children) {
  return fill(document.createElementNS(kSvg, tag), properties, children);
}

/** Puts `children` in place of what is in `element`. */
export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

/** Lets a screen reader say `text` when it is done with what it is saying. */
export function announce(text) {
  const status = document.getElementById('status');
  status.textContent = '';
  // A change in the same task as the clearing would not count as one.
  setTimeout(() => { status.textContent = text; }, 50);
}

let lastId = 0;
/** For what refers to another element: labels, hints, captions. */
export const newId = (prefix = 'e') => `${prefix}-${++lastId}`;

/** A button that says `label`; `kind`: 'primary', 'danger' or ''. */
export function button(label, onclick, kind = '', properties = {}) {
  return h('button', {type: 'button', class: `button ${kind}`, onclick, ...properties}, label);
}

/**
 * A table with a caption, in a frame that scrolls sideways where it is too wide.
 * @param {{caption: string, columns: {label: string, cell: function(*): (Child|Child[]),
 *     number?: boolean, nowrap?: boolean}[], rows: *[], empty: (Child|Child[]), foot?: (Child|Child[])[],
 *     showCaption?: boolean}} options
 */
export function table({caption, columns, rows, empty, foot, showCaption = false}) {
  if (rows.length === 0) return h('div', {class: 'empty'}, empty);
  const kind = (column) => (column.number ? 'number' : column.nowrap ? 'nowrap' : null);
  return h('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': `Table: ${caption}`},
    h('table', {},
      h('caption', {class: showCaption ? null : 'visually-hidden'}, caption),
      h('thead', {}, h('tr', {}, columns.map(
        (column) => h('th', {scope: 'col', class: kind(column)}, column.label)))),
      h('tbody', {}, rows.map((row) => h('tr', {}, columns.map((column, i) => h(
        i === 0 ? 'th' : 'td', {scope: i === 0 ? 'row' : null, class: kind(column)},
        column.cell(row)))))),
      foot && h('tfoot', {}, h('tr', {}, columns.map((column, i) => h(
        i === 0 ? 'th' : 'td', {scope: i === 0 ? 'row' : null, class: kind(column)},
        foot[i]))))));
}

/** Names and values: definitions([['Credit', '12.50'], ...]). */
export function definitions(pairs) {
  return h('dl', {class: 'definitions'}, pairs.map(
    ([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));
}

/** A titled part of a page; `tools` stand beside the title. */
export function section(title, tools, ...children) {
  const id = newId('section');
  return h('section', {'aria-labelledby': id},
    h('div', {class: 'section-head'}, h('h2', {id}, title), h('div', {class: 'tools'}, tools)),
    children);
}

/** What went wrong, and what can be done about it. */
export function failure(error, retry) {
  return h('div', {class: 'notice bad', role: 'alert'},
    h('p', {}, h('strong', {}, error.title ?? 'This did not work. '), ' ', error.message),
    error.advice && h('p', {}, error.advice),
    retry && button('Try again', retry));
}

export const badge = (text, kind = '') => h('span', {class: `badge ${kind}`}, text);
export const code = (text) => h('code', {}, text);
