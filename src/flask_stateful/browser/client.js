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

const SCOPES = ["local", "tab"];

let tabId = "";
let isNewTab = false;
let owner = "";
let purposes = ["necessary"];

// ---- Text and values

function attempt(work, failed) {
  try {
    return work();
  } catch (error) {
    return failed?.(error);
  }
}

const bytes = text => new TextEncoder().encode(text);

const encode = value =>
  btoa(String.fromCharCode(...bytes(JSON.stringify(value)))).replace(/[+/=]/g, sign => ({ "+": "-", "/": "_" })[sign] ?? "");

function decode(text) {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(binary, byte => byte.charCodeAt())));
}

// Return a frozen copy, so that no value changes behind our back, or throw. (The server would refuse a whole message for
// one lone surrogate, which is no UTF-8.)
function frozen(value, label) {
  const inside = item => frozen(item, label);
  if (value === null || value === !!value || Number.isFinite(value)) return value;
  if (typeof value === "string" && value.isWellFormed?.() !== false) return value;
  if (Array.isArray(value)) return Object.freeze(Array.from(value, inside));
  if (value && [null, Object.prototype].includes(Object.getPrototypeOf(value))) {
    return Object.freeze(Object.fromEntries(Object.entries(value).map(inside)));
  }
  throw TypeError(`${label}: JSON cannot hold this`);
}

// Return a register that came from elsewhere as {w, s: seconds to live}, or throw.
function checked(wire) {
  const [n, r, ...v] = wire.slice(0, 3).reverse();
  if (![r, n].every(Number.isInteger) || Math.min(r, n) < 0) throw TypeError();
  return { w: frozen([...v, Math.min(r, MOST), Math.min(n, MOST)]), s: wire[3] };
}

// ---- Storage: what the browser does not take, or may not, is kept in the page's memory

const memory = { local: new Map(), tab: new Map() };

// Merely to look at storage throws where it is denied.
const use = ({ scope, name }, work) => attempt(() => work(scope === "tab" ? sessionStorage : localStorage, PREFIX + name));

const load = item => memory[item.scope].get(item.name) ?? use(item, (storage, key) => storage.getItem(key)) ?? null;

// An older value must not come back with the next page.
function keep(item, text, allowed = true) {
  const { scope, name } = item;
  if (allowed && use(item, (storage, key) => storage.setItem(key, text) ?? true)) return memory[scope].delete(name);
  discard(item);
  memory[scope].set(name, text);
  if (allowed) fail(scope);
}

// Without its owner's tag, the next page takes this storage for incomplete and asks the server for everything.
function fail(scope) {
  status = "memory";
  memory[scope].set("_u", owner);
  discard({ scope, name: "_u" });
}

const discard = item => use(item, (storage, key) => storage.removeItem(key));

function drop(item) {
  memory[item.scope].delete(item.name);
  discard(item);
}

const TAB = { scope: "tab", name: "_t" };

// ---- Fields

const fields = [];

function declare(scope) {
  const handles = Object.entries(D[scope]).map(([name, model]) => {
    const handle = {};
    for (const key in model.f) {
      const label = `${name}.${key}`;
      const field = { d: null, ...model.f[key], label, name: model.v > 1 ? `${label}~${model.v}` : label, scope, model };
      field.d = frozen(field.d);
      fields.push((handle[key] = field));
    }
    return [name, new Proxy(handle, { get: getter(valueOf), set: assign, deleteProperty: reset })];
  });
  return new Proxy(Object.freeze(Object.fromEntries(handles)), { get: getter(handle => handle) });
}

// A name that nobody declared is an error. Symbols, "then" and "toJSON" are what JavaScript asks of any object.
const getter = show => (target, key) =>
  typeof key === "symbol" || key in {} || key === "then" || key === "toJSON" ? target[key] : show(demand(target, key));

function demand(known, name) {
  if (Object.hasOwn(known, name)) return known[name];
  throw TypeError(`nobody declared ${name}, only ${Object.keys(known)}`);
}

const labels = () => Object.fromEntries(fields.map(field => [field.label, field]));

const named = label => demand(labels(), label);

export const local = declare("local");
export const tab = declare("tab");

// Entries of an older version of a model: they are pushed once, as they are, for the server to migrate.
const old = [];

function findOld(scope) {
  for (const key in use({ scope }, storage => ({ ...storage }))) {
    const [, name, owner, version = 1] = key.split(PREFIX)[1]?.match(/^((\w+)\.[^~]+~?(\d+)?)$/) ?? [];
    const model = D[scope][owner];
    if (version < model?.v) offer(old[old.push({ name, scope, model }) - 1]);
  }
}

const all = () => [...fields, ...old];

// ---- Entries

// Read each time, because another tab may have written it since; parsed when it has changed. It may be anything.
function read(field) {
  const text = load(field);
  if (text !== field.text) Object.assign(field, { text, entry: parse(text) });
  const { w, d, e } = field.entry;
  if (e <= Date.now()) write(field, w.slice(-2), d);
  return field.entry;
}

function parse(text) {
  const { w, d, e } = attempt(() => JSON.parse(text)) ?? {};
  return attempt(() => ({ ...checked(w), d: d ? 1 : 0, e })) ?? { w: [0, 0], d: 0 };
}

function write(field, w, d, e) {
  const text = JSON.stringify({ w, d, e });
  Object.assign(field, { text, entry: { w, d, e } });
  keep(field, text, granted(field));
}

const granted = field => purposes.includes(field.model.p);

const revisionOf = field => read(field).w.at(-2);

const writeOf = field => read(field).w.at(-1);

// Two fields that are written within one millisecond may have the same number.
const stamp = field => field.name + writeOf(field);

function valueOf(field) {
  const { w } = read(field);
  return w.length > 2 ? w[0] : field.d;
}

const expiry = seconds => seconds && Date.now() + seconds * 1000;

function assign(handle, key, value) {
  const field = demand(handle, key);
  const { label, x, m, b = VALUE_ROOM } = field;
  if (x) throw TypeError(`${label} is sealed`);
  const copy = frozen(value, label);
  const size = bytes(JSON.stringify(copy)).length;
  const room = Math.min(b, m ? MIRROR_ROOM : VALUE_ROOM);
  if (size > room) throw RangeError(`${label}: ${size} octets, ${room} at most`);
  return commit(field, copy);
}

function reset(handle, key) {
  return commit(demand(handle, key));
}

function commit(field, ...value) {
  const n = Math.min(MOST, Math.max(writeOf(field) + 1, Date.now() * 1000));
  write(field, [...value, revisionOf(field), n], 1, expiry(field.s));
  if (field.m && granted(field)) mirror(field);
  schedule();
  announce(field);
  return true;
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
// asked for it. Each write once in a page: without cookies the server never knows who we are, and loses it each time.
function compare(field, held) {
  const { w, d } = read(field);
  if (d) return;
  if (held > revisionOf(field)) pulls++;
  if ((held ?? (w.length > 2 ? 0 : MOST)) < revisionOf(field) && field.offered !== (field.offered = stamp(field))) {
    offer(field);
  }
}

// It is pending again.
function offer(field) {
  const { w, e } = read(field);
  answered.delete(stamp(field));
  write(field, w, 1, e);
}

// ---- Cookies

// Our cookies as they were looked at last, because to ask for them takes the browser longer than all the rest; and how
// long the others are.
let jar = new Map();
let crowd = 0;

// A sandboxed page has none: then headers and bodies carry everything.
function openJar() {
  const text = attempt(() => document.cookie) ?? "";
  jar = new Map(text.split("; ").filter(pair => pair.startsWith(COOKIE)).map(pair => pair.slice(COOKIE.length).split("=")));
  crowd = text.length - (jar.get(`_q.${tabId}`)?.length ?? 0);
}

function setCookie(name, value, seconds) {
  const attributes = `Path=/; SameSite=Lax; Max-Age=${Math.ceil(seconds)}${D.secure ? "; Secure" : ""}`;
  attempt(() => (document.cookie = `${COOKIE}${name}=${value}; ${attributes}`));
  if (value) jar.set(name, value);
  else jar.delete(name);
}

function mirror(field) {
  const { w, e } = read(field);
  setCookie(field.name, encode(w), e ? (e - Date.now()) / 1000 : 400 * 86400);
}

function outbox() {
  const name = `_q.${tabId}`;
  const room = Math.min(OUTBOX_ROOM, (COOKIES_ROOM - crowd) * 0.75) - COOKIE.length;
  const push = message(room, pending().filter(field => !field.m));
  if (Object.keys(push.p).length) setCookie(name, encode(push), 60);
  else if (jar.has(name)) setCookie(name, "", 0);
}

// Any answer may have set cookies, and so may other tabs.
function look() {
  if (!tabId) return;
  openJar();
  SCOPES.forEach(scope => meetOwner(scope, jar.get("_u") ?? ""));
  purposes = ["necessary", ...(jar.get("_c") ?? "").split(".")];
  for (const field of all()) {
    if (!granted(field)) forget(field);
    else if (field.m) meetMirror(field, jar.get(field.name));
  }
  schedule();
  announceAll();
}

// What belonged to somebody else goes, before anything else is looked at: here, and in each tab. A tag that begins with
// "~" follows on one that this browser was never told; that alone is nobody's.
function meetOwner(scope, tag) {
  const item = { scope, name: "_u" };
  const before = load(item);
  owner = tag;
  if (before === tag) return;
  if (before?.length > 1 || tag[0] === "~") all().forEach(field => field.scope === scope && !field.model.s && drop(field));
  keep(item, tag);
  if ((before || scope === "local" || !isNewTab) && replica(scope).length) pulls++;
}

// What was written without consent stays in memory; once there is consent, it is pending like any other.
function forget(field) {
  discard(field);
  if (jar.has(field.name)) setCookie(field.name, "", 0);
}

// Such a cookie is the server's register. Where ours is later, or it is gone, it is written again.
function meetMirror(field, text) {
  const theirs = attempt(() => checked(decode(text)));
  const differs = () => `${theirs?.w.slice(-2)}` !== `${read(field).w.slice(-2)}`;
  if (theirs && differs()) take(field, theirs);
  if (differs() && writeOf(field) + revisionOf(field)) mirror(field);
}

const replica = scope => fields.filter(field => field.scope === scope && !field.m);

// ---- Messages to the server

// How often everything was asked for, and how often of that it has come.
let pulls = 0;
let pulled = 0;
let asked = new Map();
let failures = 0;
let flight;
let timer;

// Writes that the server has answered; one that is pending still, it will not take now.
const answered = new Set();

const unconfirmed = () => all().filter(field => granted(field) && read(field).d);

// What is to be sent, the newest first.
const pending = () =>
  unconfirmed().filter(field => !answered.has(stamp(field))).sort((one, other) => writeOf(other) - writeOf(one));

const isPulling = () => pulls > pulled || SCOPES.some(isAwaited);

const isDue = () => isPulling() || pending().length > 0;

// Cookies say up to which revision something waits for this browser, or for this tab; what has arrived is crossed out.
function isAwaited(scope) {
  const name = scope === "tab" ? `_p.${tabId}` : "_p";
  const revision = jar.get(name);
  const isHere = revision === asked.get(name) || replica(scope).some(field => revisionOf(field) >= revision);
  if (revision && isHere) setCookie(name, "", 0);
  return revision && !isHere;
}

// Return a push of as many fields as there is room for.
function message(room, wanted, g) {
  const push = { t: tabId, u: owner, q: status === "ok" ? 0 : 1, g, p: {} };
  // What is above takes this much.
  room -= 64;
  for (const { name, entry } of wanted) {
    const size = bytes(JSON.stringify([name, entry.w])).length;
    if (size > room) continue;
    room -= size;
    push.p[name] = entry.w;
  }
  return push;
}

// Make the next request carry what is pending, and send one soon. After a failure pages are spread, so that they do not
// come back all at once when the server does.
function schedule(delay = 50) {
  clearTimeout(timer);
  if (!tabId) return;
  outbox();
  const later = () => schedule(Math.min(3e5, 500 * 2 ** failures++) * (0.5 + Math.random()));
  if (isDue()) timer = setTimeout(() => send().catch(later), delay);
}

// One request at a time; who asks meanwhile waits for the same.
const send = () => (flight ??= drain().finally(() => (flight = undefined)));

async function drain() {
  while (isDue()) await post();
  failures = 0;
}

async function post() {
  const [wanted, found] = [pulls, new Map(jar)];
  const push = message(BODY_ROOM, pending(), isPulling() ? 1 : undefined);
  const response = await request(push);
  if (!response.ok) throw Error(response.status);
  const patch = await response.json();
  if (push.g) [pulled, asked] = [wanted, found];
  for (const name in push.p) answered.add(name + push.p[name].at(-1));
  old.forEach(field => field.name in push.p && drop(field));
  apply(patch);
  look();
}

const request = (push, keepalive) =>
  window.fetch(D.url, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-State": encode({ t: tabId }) },
    body: JSON.stringify(push),
    keepalive,
  });

// Resolve when the server has confirmed all that was written before; reject when it cannot be reached.
export async function flush() {
  const written = unconfirmed().map(stamp);
  await flight?.catch(() => {});
  if (isDue()) await send();
  if (unconfirmed().some(field => written.includes(stamp(field)))) throw Error("not all confirmed");
}

// ---- Messages from the server

// A page may be old, or have been rendered for another tab or user: no more of it is taken than is true here.
function apply({ t, u = "", a = {}, p = {}, h, x }) {
  if (u !== owner) return;
  const mine = field => (field.scope === "local" || t === tabId);
  const each = (told, act) => fields.filter(field => mine(field) && field.name in told).forEach(field => act(field, told[field.name]));
  each(p, (field, wire) => take(field, checked(wire)));
  each(a, acknowledge);
  if (h) fields.filter(field => mine(field) && !field.m).forEach(field => compare(field, h[field.name]));
  if (x) pulls++;
  schedule();
  announceAll();
}

// ---- This tab

// The id is marked as free while no page uses it: a duplicated tab has copied one that is in use.
function claimTab(island) {
  const [free] = /^[0-9a-f]{8}(?=-$)/.exec(load(TAB)) ?? [];
  isNewTab = !free;
  tabId = free ?? (island?.new ? island.t : newId());
  keep(TAB, tabId);
  if (isNewTab) fields.forEach(field => field.scope === "tab" && offerCopy(field));
}

// Eight hexadecimal digits. (Plain http has no crypto.randomUUID().)
const newId = () => (crypto.getRandomValues(new Uint32Array(1))[0] + 2 ** 32).toString(16).slice(1);

// The server knows nothing of a new tab.
function offerCopy(field) {
  const { w, e } = read(field);
  if (w.length > 2) write(field, [w[0], 0, w[2]], 1, e);
}

// Say which tab navigates: the request for a page has no header that could.
function hint() {
  if (replica("tab").length) setCookie("_t", tabId, 5);
  outbox();
}

// ---- Who is told

const listeners = new Set();

// Call a function with (value, name) when a field has another value, whoever changed it; "*" stands for all fields.
export function on(name, listener) {
  const pair = [name === "*" || named(name), listener];
  listeners.add(pair);
  return () => listeners.delete(pair);
}

// Compared by value: a confirmation, too, rewrites an entry, and other tabs hear of that.
function announce(field) {
  const value = valueOf(field);
  const text = JSON.stringify(value);
  if (text === field.shown) return;
  field.shown = text;
  showIn(document, field.label);
  for (const [name, listener] of listeners) {
    if (name === true || name === field) attempt(() => listener(value, field.label), reportError);
  }
}

const announceAll = () => fields.forEach(announce);

// ---- Elements

const asText = value => (typeof value === "object" && value ? JSON.stringify(value) : String(value ?? ""));

// Show the elements inside another one: all, or those of one field.
function showIn(root, label) {
  for (const element of root.querySelectorAll("[data-state-bind],[data-state-model]")) {
    const name = element.dataset.stateBind ?? element.dataset.stateModel;
    if (!label || label === name) attempt(() => fill(element, named(name)), reportError);
  }
}

// What a text field says already stays: to set it again would move the caret.
function fill(element, field) {
  const value = valueOf(field);
  const { type, options } = element;
  if (element.dataset.stateBind) element.textContent = asText(value);
  else if (type === "checkbox") element.checked = value;
  else if (type === "radio") element.checked = element.value === asText(value);
  else if (type === "select-multiple") for (const option of options) option.selected = value.map(asText).includes(option.value);
  else if (JSON.stringify(taken(element, field)) !== JSON.stringify(value)) element.value = asText(value);
}

// Return what a control says: JSON where the default is no text, and the default where it says nothing.
function taken({ type, value, checked, selectedOptions }, { d }) {
  if (type === "checkbox") return checked;
  if (type === "select-multiple") return Array.from(selectedOptions, option => option.value);
  const isText = typeof d === "string" || (d === null && type !== "number");
  return isText ? value : attempt(() => JSON.parse(value || d));
}

function listen({ target }) {
  const label = target.dataset?.stateModel;
  const value = label && taken(target, named(label));
  if (value !== undefined) assign(labels(), label, value);
}

// ---- Requests of the page

const isOurs = url => tabId && new URL(url, document.baseURI).origin === self.origin;

const header = () => encode(message(HEADER_ROOM, pending()));

function receive(url, text) {
  if (!isOurs(url)) return;
  look();
  attempt(() => apply(decode(text)));
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

// ---- Start

function start() {
  const island = attempt(() => JSON.parse(document.getElementById("fs-state").textContent));
  claimTab(island);
  SCOPES.forEach(findOld);
  look();
  // It has said which tab asks for this page; the next page may be another tab's.
  if (jar.get("_t") === tabId) setCookie("_t", "", 0);
  if (island) attempt(() => apply(island));
  showIn(document);
  // Older browsers keep pages that listen to this out of the back-forward cache.
  if (replica("tab").length) EVENTS.beforeunload = hint;
  for (const type in EVENTS) addEventListener(type, EVENTS[type], true);
  const watch = new MutationObserver(records => records.forEach(record => showIn(record.target)));
  watch.observe(document, { childList: true, subtree: true });
}

const EVENTS = {
  storage: look,
  online: look,
  focus: look,
  visibilitychange: look,
  pageshow: shown,
  pagehide: hidden,
  input: listen,
  click: hint,
  submit: hint,
  // htmx 2
  "htmx:configRequest": ({ detail: { headers, path } }) => annotate(headers, path),
  "htmx:afterRequest": ({ detail: { xhr } }) => receive(xhr.responseURL, xhr.getResponseHeader("X-State")),
  // htmx 4
  "htmx:config:request": ({ detail: { ctx } }) => annotate(ctx.request.headers, ctx.request.action),
  "htmx:after:request": ({ detail: { ctx } }) => receive(ctx.request.action, ctx.response?.headers.get("X-State")),
};

// From the back-forward cache: everything may have changed meanwhile. Otherwise: browsers restore forms late.
function shown({ persisted }) {
  if (persisted) keep(TAB, tabId);
  look();
  showIn(document);
}

// The next page of this tab takes the id. What is pending is sent once more, in case no page follows.
function hidden() {
  keep(TAB, `${tabId}-`);
  if (pending().length) request(message(BODY_ROOM, pending()), true).catch(() => {});
}

for (const field of fields) field.shown = JSON.stringify(valueOf(field));

// A page that is rendered ahead may never be seen: it confirms nothing.
if (document.prerendering) document.addEventListener("prerenderingchange", start, { once: true });
else start();
