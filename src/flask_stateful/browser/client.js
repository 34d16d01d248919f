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
const MOST = 2 ** 53 - 1;

// Octets of JSON for fields, what stands around them left out, before base64, which makes four of three. A request with
// more than 8 KiB of cookies, other tabs' included, is refused by many servers; a page that goes away may send 64 KiB.
const OUTBOX_ROOM = 2526;
const COOKIES_ROOM = 6500;
const HEADER_ROOM = 2186;
const MIRROR_ROOM = 156;
const BODY_ROOM = 65472;
const VALUE_ROOM = 64512;

// "memory" once storage was denied or full: then something lives in this page only, and on the server.
export let status = "ok";

const SCOPES = ["local", "tab"];

let tabId;
let isNewTab;
let owner;
let purposes = ["necessary"];

// ---- Text and values

function attempt(work, failed) {
  try {
    return work();
  } catch (error) {
    return failed?.(error);
  }
}

// A character for each octet of UTF-8, which is what base64 is made of. The two old functions are in every browser, and
// take a fraction of the time that an encoder and a loop take.
const octets = value => unescape(encodeURIComponent(JSON.stringify(value)));

const encode = value => btoa(octets(value)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

const decode = text => JSON.parse(decodeURIComponent(escape(atob(text.replaceAll("-", "+").replaceAll("_", "/")))));

const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other);

// Return a frozen copy, so that no value changes behind our back, or throw. (The server would refuse a whole message for
// one lone surrogate, which is no UTF-8.)
function frozen(value, label) {
  if (value === null || value === !!value || Number.isFinite(value)) return value;
  if (typeof value === "string" && value.isWellFormed?.() !== false) return value;
  if (Array.isArray(value)) return Object.freeze(Array.from(value, item => frozen(item, label)));
  if (value && Object.getPrototypeOf(value) === Object.prototype) {
    return Object.freeze(Object.fromEntries(frozen(Object.entries(value), label)));
  }
  throw TypeError(`${label} is no JSON`);
}

// Return a register that came from elsewhere as {w, s: seconds to live}, or throw.
function checked(wire) {
  const [n, r, ...v] = wire.slice(0, 3).reverse();
  if (![r, n].every(Number.isInteger) || Math.min(r, n) < 0) throw TypeError();
  return { w: frozen([...v, Math.min(r, MOST), Math.min(n, MOST)]), s: wire[3] };
}

// ---- Storage: what the browser does not take, or may not, is kept in the page's memory

// Merely to look at storage throws where it is denied.
const use = ({ scope, name }, work) => attempt(() => work(scope === "tab" ? sessionStorage : localStorage, PREFIX + name));

const load = item => item.memory ?? use(item, (storage, key) => storage.getItem(key)) ?? null;

// An older value must not come back with the next page.
function keep(item, text, allowed = true) {
  delete item.memory;
  if (allowed && use(item, (storage, key) => storage.setItem(key, text) ?? true)) return;
  discard(item);
  item.memory = text;
  if (allowed) fail(item.scope);
}

// Without its owner's tag, the next page takes this storage for incomplete and asks the server for everything.
function fail(scope) {
  status = "memory";
  discard(OWNERS[scope]);
  OWNERS[scope].memory = owner;
}

const discard = item => use(item, (storage, key) => storage.removeItem(key));

function drop(item) {
  delete item.memory;
  discard(item);
}

const TAB = { scope: "tab", name: "_t" };
const OWNERS = { local: { scope: "local", name: "_u" }, tab: { scope: "tab", name: "_u" } };

// ---- Fields

// By their labels.
const known = {};

function declare(scope) {
  const handles = {};
  for (const name in D[scope]) {
    const model = D[scope][name];
    const handle = {};
    for (const key in model.f) {
      const label = `${name}.${key}`;
      const field = { ...model.f[key], label, name: model.v > 1 ? `${label}~${model.v}` : label, scope, model };
      field.d = frozen(field.d ?? null);
      known[label] = handle[key] = field;
    }
    handles[name] = new Proxy(handle, { get: getter(valueOf), set: assign, deleteProperty: reset });
  }
  return new Proxy(Object.freeze(handles), { get: getter(handle => handle) });
}

// A name that nobody declared is an error. Symbols, "then" and "toJSON" are what JavaScript asks of any object.
const ASKED = { then: 0, toJSON: 0 };

const getter = show => (target, key) => (typeof key === "symbol" || key in ASKED ? target[key] : show(demand(target, key)));

function demand(declared, name) {
  if (Object.hasOwn(declared, name)) return declared[name];
  throw TypeError(`${name} is none of ${Object.keys(declared)}`);
}

export const local = declare("local");
export const tab = declare("tab");

const fields = Object.values(known);

// Entries of an older version of a model: they are pushed once, as they are, for the server to migrate.
const old = [];

function findOld(scope) {
  for (const key in use({ scope }, storage => storage)) {
    const [, name, owner, version = 1] = key.split(PREFIX)[1]?.match(/^((\w+)\.[^~]+~?(\d+)?)$/) ?? [];
    const model = D[scope][owner];
    if (version < model?.v) offer(old[old.push({ name, scope, model }) - 1]);
  }
}

const all = () => fields.concat(old);

// ---- Entries

// Looked up where its value is wanted or about to change, because another tab may have written it since; parsed when it
// has. It may be anything. Whatever else asks for it is content with field.entry.
function read(field) {
  const text = load(field);
  if (text !== field.text) Object.assign(field, { text, entry: parse(text) });
  const { w, d, e } = field.entry;
  if (e <= Date.now()) write(field, w.slice(-2), d);
  return field.entry;
}

function parse(text) {
  const item = attempt(() => JSON.parse(text));
  return (item && attempt(() => ({ ...item, ...checked(item.w) }))) || { w: [0, 0], d: 0 };
}

function write(field, w, d, e) {
  const text = JSON.stringify({ w, d, e });
  Object.assign(field, { text, entry: { w, d, e } });
  keep(field, text, granted(field));
}

const granted = field => purposes.includes(field.model.p);

const revisionOf = field => field.entry.w.at(-2);

const writeOf = field => field.entry.w.at(-1);

// Two fields that are written within one millisecond may have the same number.
const stamp = field => field.name + writeOf(field);

function valueOf(field, { w } = read(field)) {
  return w.length > 2 ? w[0] : field.d;
}

const expiry = seconds => seconds && Date.now() + seconds * 1000;

function assign(handle, key, value) {
  const field = demand(handle, key);
  const { label, x, m, b = MOST } = field;
  if (x) throw TypeError(`${label} is sealed`);
  const copy = frozen(value, label);
  const { length } = octets(copy);
  const room = Math.min(b, m ? MIRROR_ROOM : VALUE_ROOM);
  if (length > room) throw RangeError(`${label}: ${length} octets, ${room} at most`);
  return commit(field, copy);
}

function reset(handle, key) {
  return commit(demand(handle, key));
}

function commit(field, ...value) {
  read(field);
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
  const known = revisionOf(field);
  if (n < writeOf(field) ? !d && !field.m && r > known : r >= known) write(field, w, 0, expiry(s ?? field.s));
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
function offer(field, w = read(field).w) {
  answered.delete(stamp(field));
  write(field, w, 1, field.entry.e);
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
  crowd = text.length - (jar.get(`_q.${tabId}`) ?? "").length;
}

// Without a value, remove it where it is.
function setCookie(name, value = "", seconds = 0) {
  if (!jar.delete(name) && !value) return;
  if (value) jar.set(name, value);
  const text = `${COOKIE}${name}=${value}; Path=/; SameSite=Lax; Max-Age=${value ? Math.ceil(seconds) : 0}${D.secure ? "; Secure" : ""}`;
  attempt(() => (document.cookie = text));
}

function mirror(field) {
  const { w, e } = field.entry;
  setCookie(field.name, encode(w), e ? (e - Date.now()) / 1000 : 400 * 86400);
}

function outbox() {
  const room = Math.min(OUTBOX_ROOM, (COOKIES_ROOM - crowd) * 0.75) - COOKIE.length;
  const push = message(room, pending().filter(field => !field.m));
  setCookie(`_q.${tabId}`, Object.keys(push.p).length ? encode(push) : "", 60);
}

// Any answer may have set cookies, and so may other tabs. (An event says nothing that a patch does.)
function look(patch) {
  openJar();
  owner = jar.get("_u") ?? "";
  SCOPES.forEach(meetOwner);
  purposes = ["necessary"].concat(jar.get("_c")?.split("."));
  for (const field of all()) {
    read(field);
    if (granted(field)) {
      if (field.m) meetMirror(field, jar.get(field.name));
    } else {
      // What was written without consent stays in memory; once there is consent, it is pending like any other.
      discard(field);
      setCookie(field.name);
    }
  }
  patch && attempt(() => apply(patch));
  schedule();
  fields.forEach(announce);
}

// What belonged to somebody else goes, before anything else is looked at: here, and in each tab. A tag that begins with
// "~" follows on one that this browser was never told; that alone is nobody's.
function meetOwner(scope) {
  const item = OWNERS[scope];
  const before = load(item);
  if (before === owner) return;
  if (before?.length > 1 || owner[0] === "~") all().filter(field => field.scope === scope && !field.model.s).forEach(drop);
  keep(item, owner);
  if ((before || scope === "local" || !isNewTab) && replica(scope).length) pulls++;
}

// Such a cookie is the server's register. Where ours is later, or it is gone, it is written again.
function meetMirror(field, text) {
  const theirs = text && attempt(() => decode(text));
  const isHere = () => isSame(theirs, field.entry.w);
  if (theirs && !isHere()) attempt(() => take(field, checked(theirs)));
  if (!isHere() && writeOf(field) + revisionOf(field)) mirror(field);
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

const unconfirmed = () => all().filter(field => field.entry.d && granted(field));

// What is to be sent, the newest first.
const pending = () =>
  unconfirmed().filter(field => !answered.has(stamp(field))).sort((one, other) => writeOf(other) - writeOf(one));

const isPulling = () => pulls > pulled || SCOPES.some(isAwaited);

const isDue = () => isPulling() || pending().length;

// Cookies say up to which revision something waits for this browser, or for this tab; what has arrived is crossed out.
function isAwaited(scope) {
  const name = scope === "tab" ? `_p.${tabId}` : "_p";
  const revision = jar.get(name);
  const isHere = revision === asked.get(name) || replica(scope).some(field => revisionOf(field) >= revision);
  if (isHere) setCookie(name);
  return !isHere;
}

// Return a push of as many fields as there is room for.
function message(room, wanted, g) {
  const push = { t: tabId, u: owner, q: +(status !== "ok"), g, p: {} };
  for (const { name, entry } of wanted) {
    const { length } = octets([name, entry.w]);
    if (length <= room) {
      room -= length;
      push.p[name] = entry.w;
    }
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
  all().forEach(read);
  const [wanted, found] = [pulls, jar];
  const push = message(BODY_ROOM, pending(), +isPulling());
  const response = await request(push);
  if (!response.ok) throw Error(response.status);
  const patch = await response.json();
  if (push.g) [pulled, asked] = [wanted, found];
  for (const name in push.p) answered.add(name + push.p[name].at(-1));
  old.forEach(field => field.name in push.p && drop(field));
  look(patch);
}

const request = (push, keepalive) =>
  window.fetch(D.url, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-State": encode(tabId) },
    body: JSON.stringify(push),
    keepalive,
  });

// Resolve when the server has confirmed all that was written before; reject when it cannot be reached.
export async function flush() {
  const written = unconfirmed().map(stamp);
  await flight?.catch(() => {});
  if (isDue()) await send();
  if (unconfirmed().some(field => written.includes(stamp(field)))) throw Error("unconfirmed");
}

// ---- Messages from the server

// A page may be old, or have been rendered for another tab or user: no more of it is taken than is true here.
function apply({ t, u = "", a = {}, p = {}, h, x }) {
  if (u !== owner) return;
  for (const field of fields.filter(({ scope }) => scope === "local" || t === tabId)) {
    const { name, m } = field;
    if (p[name]) take(field, checked(p[name]));
    if (a[name]) acknowledge(field, a[name]);
    if (h && !m) compare(field, h[name]);
  }
  if (x) pulls++;
}

// ---- This tab

// The id is marked as free while no page uses it: a duplicated tab has copied one that is in use.
function claimTab(island) {
  const [free] = /^[0-9a-f]{8}(?=-$)/.exec(load(TAB)) ?? [];
  isNewTab = !free;
  tabId = free ?? (island?.new ? island.t : newId());
  // The server knows nothing of a new tab.
  for (const field of isNewTab ? replica("tab") : []) {
    const [v, , n] = field.entry.w;
    if (n) offer(field, [v, 0, n]);
  }
}

// Eight hexadecimal digits. Nobody gains by guessing them: a browser's own id, which scripts cannot read, goes with them.
const newId = () => Math.random().toString(16).padEnd(10, 0).slice(2, 10);

// Say which tab navigates: the request for a page has no header that could.
function hint() {
  if (replica("tab").length) setCookie("_t", tabId, 5);
  outbox();
}

// ---- Who is told

const listeners = new Set();

// Call a function with (value, name) when a field has another value, whoever changed it; "*" stands for all fields.
export function on(name, listener) {
  name === "*" || demand(known, name);
  const pair = [name, listener];
  listeners.add(pair);
  return () => listeners.delete(pair);
}

// Compared by value: a confirmation, too, rewrites an entry, and other tabs hear of that.
function announce(field) {
  const { entry, told } = field;
  field.told = entry;
  const value = valueOf(field, entry);
  if (entry === told || isSame(value, valueOf(field, told))) return;
  showIn(document, field.label);
  for (const [name, listener] of listeners) {
    if (name === "*" || name === field.label) attempt(() => listener(value, field.label), reportError);
  }
}

// ---- Elements

const asText = value => (typeof value === "object" && value ? JSON.stringify(value) : String(value ?? ""));

// Show the elements inside another one: all, or those of one field.
function showIn(root, label) {
  const which = label ? `="${label}"]` : "]";
  for (const element of root.querySelectorAll(`[data-state-bind${which},[data-state-model${which}`)) {
    attempt(() => fill(element), reportError);
  }
}

// What an element says already stays: to set it again costs a layout, and would move the caret.
function fill(element) {
  const bound = element.getAttribute("data-state-bind");
  const field = demand(known, bound ?? element.getAttribute("data-state-model"));
  const value = valueOf(field);
  const text = asText(value);
  const { type, options } = element;
  if (bound) element.textContent === text || (element.textContent = text);
  else if (type === "checkbox") element.checked = value;
  else if (type === "radio") element.checked = element.value === text;
  else if (type === "select-multiple") for (const option of options) option.selected = value.map(asText).includes(option.value);
  else if (!isSame(taken(element, field), value)) element.value = text;
}

// Return what a control says: JSON where the default is no text, and the default where it says nothing.
function taken({ type, value, checked, selectedOptions }, { d }) {
  if (type === "checkbox") return checked;
  if (type === "select-multiple") return Array.from(selectedOptions, option => option.value);
  const isText = typeof d === "string" || (d === null && type !== "number");
  return isText ? value : attempt(() => JSON.parse(value || d));
}

function listen({ target }) {
  const label = target.getAttribute?.("data-state-model");
  const value = label ? taken(target, demand(known, label)) : undefined;
  if (value !== undefined) assign(known, label, value);
}

// ---- Requests of the page

const isOurs = url => tabId && new URL(url, document.baseURI).origin === origin;


const receive = (url, text) => isOurs(url) && look(attempt(() => decode(text)));

// Fetch as window.fetch does; our own origin is told what is pending, and what it answers is applied.
export async function fetch(input, init) {
  if (!isOurs(input.url ?? input)) return window.fetch(input, init);
  const request = new Request(input, init);
  request.headers.set("X-State", encode(message(HEADER_ROOM, pending())));
  const response = await window.fetch(request);
  receive(response.url, response.headers.get("X-State"));
  return response;
}

const annotate = (headers, url) => isOurs(url) && (headers["X-State"] = encode(message(HEADER_ROOM, pending())));

// ---- Start

function start() {
  const island = attempt(() => JSON.parse(document.getElementById("fs-state")?.textContent ?? null));
  claimTab(island);
  if (fields.some(field => field.model.v > 1)) SCOPES.forEach(findOld);
  shown(island);
  // It has said which tab asks for this page; the next page may be another tab's.
  if (jar.get("_t") === tabId) setCookie("_t");
  // Older browsers keep pages that listen to this out of the back-forward cache.
  if (replica("tab").length) EVENTS.beforeunload = hint;
  for (const type in EVENTS) addEventListener(type, EVENTS[type], true);
  new MutationObserver(records => records.forEach(({ target }) => showIn(target))).observe(document, {
    childList: true,
    subtree: true,
  });
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
function shown(island) {
  keep(TAB, tabId);
  look(island);
  showIn(document);
}

// The next page of this tab takes the id. What is pending is sent once more, in case no page follows.
function hidden() {
  keep(TAB, `${tabId}-`);
  if (pending().length) request(message(BODY_ROOM, pending()), true).catch(() => {});
}

for (const field of fields) field.told = read(field);

// A page that is rendered ahead may never be seen: it confirms nothing.
if (document.prerendering) document.onprerenderingchange = start;
else start();
