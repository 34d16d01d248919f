// The browser's half of declared state: what Python calls LocalState and TabState, as plain JavaScript objects.
//
//     import { local, tab, on, flush, fetch, status } from "/_state/client.js";
//     local.prefs.theme = "dark";
//
// Each declared field is a register with two counters: r, the server's revision, and n, the browser's own write number.
// Web storage holds one item for each: {w: [v, r, n], or [r, n] without a value; d: 1 until the server has confirmed
// write n; e: expiry}. What is pending travels in cookies, so that the very next request carries it whoever makes it, and
// in requests of our own until the server has answered. Whatever arrives twice, late or never does no harm.
//
// Comments are lines of their own and no text spans lines: both go when the module is served.

// What the application declares; put here when the module is served.
const D = {};

const PREFIX = `fs:${D.ns}:`;
const COOKIE = `${D.secure ? "__Host-" : ""}fs.${D.ns}.`;
const MOST = Number.MAX_SAFE_INTEGER;

// Octets of text before base64, which makes four of three. A request with more than 8 KiB of cookies is refused by many
// servers, other tabs' included; a page that goes away may send 64 KiB.
const OUTBOX_ROOM = 2590;
const COOKIES_ROOM = 6500;
const HEADER_ROOM = 2250;
const MIRROR_ROOM = 156;
const BODY_ROOM = 65536;
const VALUE_ROOM = 64512;

// "memory" once storage was denied or full: then something lives in this page only, and on the server.
export let status = "ok";

let tabId = "";
let isNewTab = false;
let owner = "";
let purposes = new Set(["necessary"]);

// ---- Text and values

function attempt(work) {
  try {
    return work();
  } catch {
    return undefined;
  }
}

const bytes = text => new TextEncoder().encode(text);

const encode = value =>
  btoa(String.fromCharCode(...bytes(JSON.stringify(value)))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

function decode(text) {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(binary, byte => byte.charCodeAt())));
}

// Return a frozen copy, so that no value changes behind our back, or throw. (The server would refuse a whole message for
// one lone surrogate, which is no UTF-8.)
function frozen(value, label, depth = 64) {
  const inside = item => frozen(item, label, depth - 1);
  if (value === null || typeof value === "boolean" || Number.isFinite(value)) return value;
  if (typeof value === "string" && value.isWellFormed?.() !== false) return value;
  if (depth && Array.isArray(value)) return Object.freeze(Array.from(value, inside));
  if (depth && value && [null, Object.prototype].includes(Object.getPrototypeOf(value))) {
    return Object.freeze(Object.fromEntries(Object.entries(value).map(pair => pair.map(inside))));
  }
  throw new TypeError(`${label}: JSON cannot hold ${depth ? typeof value : "what is nested so deep"}`);
}

// Return a register that came from elsewhere as {w, s: seconds to live}, or throw.
function checked(wire) {
  const [r, n, s] = wire.length === 2 ? wire : wire.slice(1);
  if (![r, n].every(count => Number.isInteger(count) && count >= 0)) throw new TypeError();
  return { w: [...wire.slice(0, -2 - (wire.length > 3)).map(frozen), Math.min(r, MOST), Math.min(n, MOST)], s };
}

// ---- Storage: what the browser does not take, or may not, is kept in the page's memory

class Area {
  memory = new Map();

  constructor(kind) {
    this.kind = kind;
  }

  // Merely to look at storage throws where it is denied.
  use(work) {
    return attempt(() => work(window[this.kind]));
  }

  names() {
    const keys = this.use(Object.keys) ?? [];
    return keys.filter(key => key.startsWith(PREFIX)).map(key => key.slice(PREFIX.length));
  }

  get(name) {
    return this.memory.get(name) ?? this.use(storage => storage.getItem(PREFIX + name));
  }

  set(name, text, allowed = true) {
    if (allowed && this.use(storage => storage.setItem(PREFIX + name, text) ?? true)) this.memory.delete(name);
    else {
      this.forget(name);
      this.memory.set(name, text);
      if (allowed) this.fail();
    }
  }

  // Without its owner's tag, the next page takes this area for incomplete and asks the server for everything.
  fail() {
    status = "memory";
    this.memory.set("_u", owner);
    this.forget("_u");
  }

  // An older value must not come back with the next page.
  forget(name) {
    this.use(storage => storage.removeItem(PREFIX + name));
  }

  remove(name) {
    this.memory.delete(name);
    this.forget(name);
  }
}

const areas = { local: new Area("localStorage"), tab: new Area("sessionStorage") };

// ---- Fields, by the name of their register and by the label that users know them by

const RESET = Symbol("reset");
const fields = new Map();
const labels = new Map();

function declare(scope) {
  const handles = {};
  for (const [model, { v, p: purpose, s: shared, f }] of Object.entries(D[scope])) {
    const handle = {};
    for (const [key, options] of Object.entries(f)) {
      const label = `${model}.${key}`;
      const field = { ...options, d: options.x ? undefined : frozen(options.d), label, name: versioned(label, v), scope, purpose, shared };
      fields.set(field.name, field);
      labels.set(label, field);
      Object.defineProperty(handle, key, { get: () => valueOf(field), set: value => assign(field, value), enumerable: true, configurable: true });
    }
    handles[model] = guarded(handle, model);
  }
  return guarded(Object.freeze(handles), scope);
}

const versioned = (label, version) => (version > 1 ? `${label}~${version}` : label);

export const local = declare("local");
export const tab = declare("tab");

// Entries of an older version of a model: they are pushed once, as they are, for the server to migrate.
const old = new Map();

function findOld(scope) {
  for (const name of areas[scope].names()) {
    const [, model, version = 1] = /^(\w+)\.[^~]+~?(\d+)?$/.exec(name) ?? [];
    const { v, p: purpose, s: shared } = D[scope][model] ?? {};
    if (version < v) old.set(name, { label: name, name, scope, purpose, shared });
  }
}

const all = () => [...fields.values(), ...old.values()];

// A name that nobody declared is an error. Symbols, "then" and "toJSON" are what JavaScript asks of any object.
function guarded(target, where) {
  const demand = key => Object.hasOwn(target, key) || unknown(key, Object.keys(target), `${where}.`);
  return new Proxy(target, {
    get(_, key) {
      if (typeof key === "string" && !(key in target) && key !== "then" && key !== "toJSON") demand(key);
      return target[key];
    },
    set(_, key, value) {
      demand(key);
      target[key] = value;
      return true;
    },
    deleteProperty(_, key) {
      demand(key);
      target[key] = RESET;
      return true;
    },
  });
}

function unknown(name, known, where = "") {
  const likeness = other => [...other].filter((_, at) => name.includes(other.slice(at, at + 2))).length - other.length / 2;
  const [nearest] = [...known].sort((one, other) => likeness(other) - likeness(one));
  throw new TypeError(`there is no ${where}${name}; the nearest is ${where}${nearest}`);
}

const named = label => labels.get(label) ?? unknown(label, labels.keys());

// ---- Entries

// Read each time, because another tab may have written it since; parsed when it has changed. It may be anything.
function read(field) {
  const text = areas[field.scope].get(field.name);
  if (text !== field.text) Object.assign(field, { text, entry: parse(text) });
  const { w, d, e } = field.entry;
  if (e <= Date.now()) write(field, w.slice(-2), d);
  return field.entry;
}

function parse(text) {
  const found = attempt(() => JSON.parse(text));
  return attempt(() => ({ ...checked(found.w), d: found.d ? 1 : 0, e: found.e })) ?? { w: [0, 0], d: 0 };
}

function write(field, w, d, e) {
  const text = JSON.stringify({ w, d, e });
  Object.assign(field, { text, entry: { w, d, e } });
  areas[field.scope].set(field.name, text, granted(field));
}

const granted = field => purposes.has(field.purpose);

const revisionOf = field => read(field).w.at(-2);

const writeOf = field => read(field).w.at(-1);

function valueOf(field) {
  const { w } = read(field);
  return w.length > 2 ? w[0] : field.d;
}

const expiry = seconds => (seconds === undefined ? undefined : Date.now() + seconds * 1000);

function assign(field, value) {
  if (value === RESET) return commit(field, []);
  if (field.x) throw new TypeError(`${field.label} is sealed: only Python can write it`);
  const copy = frozen(value, field.label);
  const size = bytes(JSON.stringify(copy)).length;
  const room = Math.min(field.b ?? VALUE_ROOM, field.m ? MIRROR_ROOM : VALUE_ROOM);
  if (size > room) throw new RangeError(`${field.label}: ${size} octets of JSON, ${room} at most`);
  commit(field, [copy]);
}

function commit(field, value) {
  const n = Math.min(MOST, Math.max(writeOf(field) + 1, Date.now() * 1000));
  write(field, [...value, revisionOf(field), n], 1, expiry(field.s));
  carry(field);
  announce(field);
}

// ---- The browser's half of the register's rules

function take(field, { w, s }) {
  const { d } = read(field);
  const [r, n] = w.slice(-2);
  const isOlder = n < writeOf(field);
  if (isOlder && (d || field.m)) return;
  if (r > revisionOf(field) || (r === revisionOf(field) && !isOlder)) write(field, w, 0, expiry(s ?? field.s));
}

function acknowledge(field, [r, n]) {
  const { w, d, e } = read(field);
  if (d && n === writeOf(field) && r >= revisionOf(field)) write(field, [...w.slice(0, -2), r, n], 0, e);
}

// The server says which revision it holds: where it has lost one it is offered it again, where it has a later one it is
// asked for it.
function compare(field, held) {
  const { w, d, e } = read(field);
  if (d) return;
  if (held > revisionOf(field)) pulls++;
  if ((held ?? 0) < revisionOf(field) && (w.length > 2 || held !== undefined)) write(field, w, 1, e);
}

// ---- Cookies

// A sandboxed page has none: then headers and bodies carry everything.
const cookies = () => attempt(() => document.cookie) ?? "";

function jar() {
  const ours = cookies().split("; ").filter(pair => pair.startsWith(COOKIE));
  return new Map(ours.map(pair => pair.slice(COOKIE.length).split("=")));
}

function setCookie(name, value, seconds) {
  const attributes = `Path=/; SameSite=Lax; Max-Age=${Math.ceil(seconds)}${D.secure ? "; Secure" : ""}`;
  attempt(() => (document.cookie = `${COOKIE}${name}=${value}; ${attributes}`));
}

// Make the next request carry what was written.
function carry(field) {
  if (field.m && granted(field)) mirror(field);
  outbox();
  schedule();
}

function mirror(field) {
  const { w, e } = read(field);
  setCookie(field.name, encode(w), e ? (e - Date.now()) / 1000 : 400 * 86400);
}

function outbox() {
  const name = `_q.${tabId}`;
  const before = jar().get(name) ?? "";
  const room = Math.min(OUTBOX_ROOM, (COOKIES_ROOM - cookies().length + before.length) * 0.75);
  const push = message(room - COOKIE.length, pending().filter(field => !field.m));
  if (tabId && push.p) setCookie(name, encode(push), 60);
  else if (before) setCookie(name, "", 0);
}

// Any answer may have set cookies, and so may other tabs.
function look() {
  if (!tabId) return;
  const found = jar();
  meetOwner(found.get("_u") ?? "");
  meetConsent(found);
  for (const field of fields.values()) if (field.m && granted(field)) meetMirror(field, found.get(field.name));
  if (isDue()) schedule();
  announceAll();
}

// What belonged to somebody else goes, before anything else is looked at: here, and in each tab.
function meetOwner(tag) {
  owner = tag;
  for (const [scope, area] of Object.entries(areas)) {
    const before = area.get("_u");
    if (before === tag) continue;
    if (before) all().forEach(field => field.scope === scope && !field.shared && area.remove(field.name));
    area.set("_u", tag);
    if ((before || scope === "local" || !isNewTab) && replica(scope).length) pulls++;
  }
}

// What lives in memory for want of consent, or of room, is tried again.
function meetConsent(found) {
  purposes = new Set(["necessary", ...(found.get("_c") ?? "").split(".")]);
  for (const field of all()) {
    const area = areas[field.scope];
    if (!granted(field)) {
      area.forget(field.name);
      if (found.has(field.name)) setCookie(field.name, "", 0);
    } else if (area.memory.has(field.name)) {
      const { w, d, e } = read(field);
      write(field, w, d, e);
      if (d) carry(field);
    }
  }
}

// Such a cookie is the server's register. Where ours is later, or it is gone, it is written again.
function meetMirror(field, text) {
  const theirs = attempt(() => checked(decode(text)));
  const differs = () => theirs?.w.slice(-2).join() !== read(field).w.slice(-2).join();
  if (theirs && differs()) take(field, theirs);
  if (differs() && writeOf(field) + revisionOf(field)) mirror(field);
}

const replica = scope => [...fields.values()].filter(field => field.scope === scope && !field.m);

// ---- Messages to the server

// How often everything was asked for, and how often of that it has come.
let pulls = 0;
let pulled = 0;
let asked = new Map();
let failures = 0;
let flight;
let timer;

// What the server has not confirmed, the newest first.
const pending = () =>
  all()
    .filter(field => granted(field) && (read(field).d || old.has(field.name)))
    .sort((one, other) => writeOf(other) - writeOf(one));

const isPulling = () => pulls > pulled || isAwaited();

const isDue = () => isPulling() || pending().length > 0;

// Cookies say up to which revision something waits for this browser, or for this tab; what has arrived is crossed out.
function isAwaited() {
  const found = jar();
  const names = Object.entries({ local: "_p", tab: `_p.${tabId}` }).filter(([, name]) => found.has(name));
  return names.some(([scope, name]) => {
    const revision = found.get(name);
    const isHere = revision === asked.get(name) || replica(scope).some(field => revisionOf(field) >= revision);
    if (isHere) setCookie(name, "", 0);
    return !isHere;
  });
}

// Return a push of as many fields as there is room for.
function message(room, wanted, g) {
  const push = { t: tabId, u: owner || undefined, q: status === "ok" ? undefined : 1, g };
  room -= bytes(JSON.stringify(push)).length + 7;
  for (const { name, entry } of wanted) {
    const size = bytes(JSON.stringify([name, entry.w])).length;
    if (size > room) continue;
    room -= size;
    push.p = { ...push.p, [name]: entry.w };
  }
  return push;
}

function schedule(delay = 50) {
  clearTimeout(timer);
  if (tabId) timer = setTimeout(() => send().catch(() => {}), delay);
}

// One request at a time; who asks meanwhile waits for the same.
const send = () => (flight ??= drain().finally(() => (flight = undefined)));

// What the server leaves pending although it has answered, it will not take now: it is not asked again at once.
async function drain() {
  try {
    for (let left = Infinity; isPulling() || (isDue() && pending().length < left); ) {
      left = pending().length;
      await post();
    }
    failures = 0;
  } catch (error) {
    // Spread, so that not all pages come back at once when the server does.
    schedule(Math.min(300_000, 500 * 2 ** failures++) * (0.5 + Math.random() / 2));
    outbox();
    throw error;
  }
}

async function post() {
  const [wanted, found] = [pulls, jar()];
  const push = message(BODY_ROOM, pending(), isPulling() ? 1 : undefined);
  const response = await request(push);
  if (!response.ok) throw new Error(`${D.url} answered ${response.status}`);
  const patch = await response.json();
  if (push.g) [pulled, asked] = [wanted, found];
  for (const name of Object.keys(push.p ?? {})) if (old.delete(name)) Object.values(areas).forEach(area => area.remove(name));
  apply(patch);
  look();
}

const request = (push, keepalive) =>
  window.fetch(D.url, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-State": encode({ t: tabId }) },
    body: JSON.stringify(push),
    signal: AbortSignal.timeout(30_000),
    keepalive,
  });

// Resolve when the server has confirmed all that was written before; reject when it cannot be reached.
export async function flush() {
  const written = new Set(pending().map(writeOf));
  await flight?.catch(() => {});
  if (isDue()) await send();
  const left = pending().filter(field => written.has(writeOf(field)));
  if (left.length) throw new Error(`not confirmed by the server: ${left.map(field => field.label)}`);
}

// ---- Messages from the server

// A page may be old, or have been rendered for another tab or user: no more of it is taken than is true here.
function apply({ t, u = "", a = {}, p = {}, h, x }) {
  if (u !== owner) return;
  const mine = field => field && (field.scope === "local" || t === tabId);
  const each = (told, act) => Object.entries(told).forEach(([name, what]) => mine(fields.get(name)) && act(fields.get(name), what));
  each(p, (field, wire) => take(field, checked(wire)));
  each(a, acknowledge);
  if (h) [...replica("local"), ...replica("tab")].filter(mine).forEach(field => compare(field, h[field.name]));
  if (x) pulls++;
  if (isDue()) schedule();
  outbox();
  announceAll();
}

// ---- This tab

// The id is marked as free while no page uses it: a duplicated tab has copied one that is in use.
function claimTab(island) {
  const [, id, isFree] = /^([0-9a-f]{8})(-?)$/.exec(areas.tab.get("_t")) ?? [];
  isNewTab = !isFree;
  tabId = isFree ? id : island?.new ? island.t : crypto.randomUUID().slice(0, 8);
  areas.tab.set("_t", tabId);
  if (isNewTab) fields.forEach(field => field.scope === "tab" && offerCopy(field));
}

// The server knows nothing of a new tab.
function offerCopy(field) {
  const { w, e } = read(field);
  if (w.length > 2) write(field, [w[0], 0, w[2]], 1, e);
  else areas.tab.remove(field.name);
}

// Say which tab navigates: the request for a page has no header that could.
function hint() {
  if (Object.keys(D.tab).length) setCookie("_t", tabId, 5);
  outbox();
}

// ---- Who is told

const listeners = new Map();

// Call a function with (value, name) when a field has another value, whoever changed it; "*" stands for all fields.
export function on(name, listener) {
  const key = name === "*" ? name : named(name).label;
  listeners.set(key, new Set(listeners.get(key)).add(listener));
  return () => listeners.get(key).delete(listener);
}

// Compared by value: a confirmation, too, rewrites an entry, and other tabs hear of that.
function announce(field) {
  const before = field.shown;
  field.shown = valueOf(field);
  if (before === field.shown || JSON.stringify(before) === JSON.stringify(field.shown)) return;
  document.querySelectorAll(BOUND.replaceAll("]", `="${field.label}"]`)).forEach(show);
  for (const key of [field.label, "*"]) listeners.get(key)?.forEach(listener => guard(() => listener(field.shown, field.label)));
}

const announceAll = () => fields.forEach(announce);

// One listener or element that fails does not keep the others from being told.
function guard(work) {
  try {
    work();
  } catch (error) {
    reportError(error);
  }
}

// ---- Elements

const BOUND = "[data-state-bind],[data-state-model]";

const asText = value => (typeof value === "object" && value ? JSON.stringify(value) : String(value ?? ""));

function show(element) {
  const { stateBind, stateModel } = element.dataset;
  if (stateBind) guard(() => (element.textContent = asText(valueOf(named(stateBind)))));
  if (stateModel) guard(() => fill(element, named(stateModel)));
}

// What a text field says already stays: to set it again would move the caret.
function fill(control, field) {
  const value = valueOf(field);
  if (control.type === "checkbox") control.checked = value;
  else if (control.type === "radio") control.checked = control.value === asText(value);
  else if (control.multiple) for (const option of control.options) option.selected = value.map(asText).includes(option.value);
  else if (JSON.stringify(taken(control, field)) !== JSON.stringify(value)) control.value = asText(value);
}

// Return what a control says, of the type of the field's default; undefined where that is nothing.
function taken({ type, value, checked, multiple, selectedOptions }, { d }) {
  if (type === "checkbox") return checked;
  if (multiple && selectedOptions) return Array.from(selectedOptions, option => option.value);
  if (typeof d === "boolean") return value === "true";
  if (typeof d !== "number" && type !== "number" && type !== "range") return value;
  if (value.trim() && isFinite(value)) return Number(value);
  return d === null ? null : undefined;
}

function listen({ target }) {
  const field = target.dataset?.stateModel && named(target.dataset.stateModel);
  const value = field && taken(target, field);
  if (value !== undefined) assign(field, value);
}

const showIn = root => root.querySelectorAll?.(BOUND).forEach(show);

function showAdded(records) {
  for (const node of records.flatMap(record => [...record.addedNodes])) {
    if (node.matches?.(BOUND)) show(node);
    showIn(node);
  }
}

// ---- Requests of the page

const isOurs = url => tabId && new URL(url, document.baseURI).origin === self.origin;

const header = () => encode(message(HEADER_ROOM, pending()));

function receive(url, text) {
  if (!isOurs(url)) return;
  look();
  if (text) attempt(() => apply(decode(text)));
}

// Fetch as window.fetch does; our own origin is told what is pending, and what it answers is applied.
export async function fetch(input, init) {
  if (!isOurs(input.url ?? input)) return window.fetch(input, init);
  const request = new Request(input, init);
  request.headers.set("X-State", header());
  const response = await window.fetch(request);
  receive(response.url, response.headers.get("X-State"));
  return response;
}

const annotate = (headers, url) => isOurs(url) && (headers["X-State"] = header());

// The first two are htmx 2's, the others htmx 4's.
const htmx = {
  "htmx:configRequest": ({ headers, path }) => annotate(headers, path),
  "htmx:afterRequest": ({ xhr }) => receive(xhr.responseURL, isOurs(xhr.responseURL) && xhr.getResponseHeader("X-State")),
  "htmx:config:request": ({ ctx }) => annotate(ctx.request.headers, ctx.request.action),
  "htmx:after:request": ({ ctx }) => receive(ctx.request.action, ctx.response?.headers.get("X-State")),
};

// ---- Start

function start() {
  const island = attempt(() => JSON.parse(document.getElementById("fs-state").textContent));
  claimTab(island);
  Object.keys(areas).forEach(findOld);
  look();
  if (island) attempt(() => apply(island));
  outbox();
  showIn(document);
  follow();
}

function follow() {
  addEventListener("storage", heard);
  addEventListener("online", () => schedule(0));
  addEventListener("focus", look);
  addEventListener("pageshow", shown);
  addEventListener("pagehide", hidden);
  addEventListener("click", hint, true);
  addEventListener("submit", hint, true);
  // Older browsers keep pages that listen to this out of the back-forward cache.
  if (Object.keys(D.tab).length) addEventListener("beforeunload", hint);
  document.addEventListener("visibilitychange", look);
  document.addEventListener("input", listen, true);
  for (const [name, act] of Object.entries(htmx)) document.addEventListener(name, event => act(event.detail));
  new MutationObserver(showAdded).observe(document, { childList: true, subtree: true });
}

// Another tab has written; or somebody has cleared everything (no key), and then cookies and server still know some of it.
function heard({ key }) {
  if (key === null) look();
  else if (key.startsWith(PREFIX)) announceAll();
}

// From the back-forward cache: everything may have changed meanwhile. Otherwise: browsers restore forms late.
function shown({ persisted }) {
  if (persisted) claimTab();
  look();
  showIn(document);
}

// The next page of this tab takes the id. What is pending is sent once more, in case no page follows.
function hidden() {
  areas.tab.set("_t", `${tabId}-`);
  if (pending().length) request(message(BODY_ROOM, pending()), true).catch(() => {});
}

for (const field of fields.values()) field.shown = valueOf(field);

// A page that is rendered ahead may never be seen: it confirms nothing.
if (document.prerendering) document.addEventListener("prerenderingchange", start, { once: true });
else start();
