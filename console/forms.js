// Forms and dialogs. A form shows what the server refused beside the field that it named.
import {announce, button, h, newId, replace} from './dom.js';

/**
 * One labelled field.
 * @typedef {{name: string, label: string, type?: string, hint?: string, value?: *,
 *   options?: [string, string][], required?: boolean, placeholder?: string, rows?: number,
 *   attributes?: Object}} Field
 *   type: 'text' (default), any of input's, 'select' with `options`, 'textarea', 'checkbox'
 * @param {Field} field
 */
export function field({name, label, type = 'text', hint, value, options, required, placeholder,
  rows, attributes = {}}) {
  const id = newId('field');
  const hintId = hint ? `${id}-hint` : null;
  const common = {id, name, required, placeholder, 'aria-describedby': hintId, ...attributes};
  let input;
  if (type === 'select')
    input = h('select', common, options.map(([each, text]) => h(
      'option', {value: each, selected: String(each) === String(value ?? '')}, text)));
  else if (type === 'textarea')
    input = h('textarea', {rows: rows ?? 3, ...common, value: value ?? ''});
  else if (type === 'checkbox')
    input = h('input', {...common, type, checked: Boolean(value)});
  else
    input = h('input', {...common, type, value: value ?? '', autocomplete: 'off'});
  const labelElement = h('label', {for: id}, label, required && h('span', {class: 'required'},
    ' (required)'));
  const hintElement = hint && h('p', {class: 'hint', id: hintId}, hint);
  return type === 'checkbox'
    ? h('div', {class: 'field check'}, input, labelElement, hintElement)
    : h('div', {class: 'field'}, labelElement, input, hintElement);
}

/** What a form's fields say: text trimmed, checkboxes as booleans. */
export function values(form) {
  const said = {};
  for (const input of form.elements) {
    if (!input.name) continue;
    said[input.name] = input.type === 'checkbox' ? input.checked : input.value.trim();
  }
  return said;
}

function showError(form, error) {
  const named = error.param && form.elements.namedItem(error.param);
  const input = named instanceof HTMLElement ? named : null;
  const box = form.querySelector('.form-error');
  replace(box, h('strong', {}, error.title ?? 'Not accepted: '), error.message);
  box.hidden = false;
  if (!input) return;
  input.setAttribute('aria-invalid', 'true');
  input.focus();
}

function clearError(form) {
  form.querySelector('.form-error').hidden = true;
  for (const input of form.elements) input.removeAttribute('aria-invalid');
}

/**
 * A form that cannot be sent twice at once.
 * @param {{fields: Node[], submit: string, kind?: string,
 *   onSubmit: function(Object): Promise<void>, onCancel?: function(): void}} options
 */
export function form({fields, submit, kind = 'primary', onSubmit, onCancel}) {
  const send = h('button', {type: 'submit', class: `button ${kind}`}, submit);
  const element = h('form', {novalidate: true}, fields,
    h('p', {class: 'form-error', role: 'alert', hidden: true}),
    h('div', {class: 'actions'}, send, onCancel && button('Cancel', onCancel)));
  element.addEventListener('submit', async (event) => {
    event.preventDefault();
    clearError(element);
    const missing = [...element.elements].find((input) => !input.checkValidity());
    if (missing) {
      const name = element.querySelector(`label[for="${missing.id}"]`)?.firstChild.textContent;
      showError(element, {title: `${name ?? missing.name}: `, message: missing.validationMessage,
        param: missing.name});
      return;
    }
    send.disabled = true;
    try {
      await onSubmit(values(element));
    } catch (error) {
      if (error.name !== 'AbortError') showError(element, error);
    } finally {
      send.disabled = false;
    }
  });
  return element;
}

/**
 * A dialog in front of the page. Escape closes it; focus goes back to where it was.
 * @param {string} title
 * @param {function(function(): void): (Node|Node[])} content gets what closes the dialog
 * @param {{onClose?: function(): void}} [options]
 */
export function dialog(title, content, {onClose} = {}) {
  const id = newId('dialog');
  const element = h('dialog', {'aria-labelledby': id});
  const close = () => element.close();
  element.append(h('div', {class: 'dialog-head'}, h('h2', {id}, title),
    button('Close', close, 'quiet')));
  element.append(...[content(close)].flat());
  element.addEventListener('close', () => {
    element.remove();
    onClose?.();
  });
  document.body.append(element);
  element.showModal();
  element.querySelector('form input, form select, form textarea, .first')?.focus();
  return element;
}

/** Asks before something that cannot be undone; `act` may fail, and says so in the dialog. */
export function confirm(title, text, label, act) {
  dialog(title, (close) => form({
    fields: [h('p', {}, text)], submit: label, kind: 'danger', onCancel: close,
    onSubmit: async () => {
      await act();
      close();
    },
  }));
}

/** Shows a new key's secret, which nobody can show again. */
export function showSecret(secret, onClose) {
  dialog('Copy the key now', (close) => {
    const copied = h('span', {class: 'hint', role: 'status'});
    const output = h('input', {readonly: true, class: 'secret', value: secret,
      'aria-label': 'Secret key', onfocus: () => output.select()});
    const copy = button('Copy', async () => {
      try {
        await navigator.clipboard.writeText(secret);
        copied.textContent = 'Copied.';
      } catch {
        output.focus();
        copied.textContent = 'Press Ctrl+C to copy.';
      }
    }, 'primary first');
    return [
      h('p', {}, 'This is the only time the key is shown. The server keeps a hash of it, ' +
        'not the key.'),
      h('div', {class: 'row'}, output, copy), copied,
      h('div', {class: 'actions'}, button('I have stored it', close)),
    ];
  }, {onClose});
  announce('The new key is shown once. Copy it now.');
}
