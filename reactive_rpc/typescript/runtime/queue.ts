/**
 * Mutations that wait for the network: in the order they were made, over reloads, each made once.
 *
 * A mutation is stored before it is sent, and until its outcome is known; so it may be sent again, by a page that knows
 * nothing of the first try, and its idempotency key has the server make it once. One tab sends for all (a lock), the
 * others hear of each outcome. `docs/internals/typescript.md`, "Mutations that wait", argues each step.
 */

import { Backoff } from './backoff.ts';
import type { MutationOptions } from './calls.ts';
import type { ProcedureCodecs } from './engine.ts';
import { asError, ReactiveError } from './errors.ts';
import { isObject } from './json.ts';
import { isUp } from './later.ts';
import { isRefusal, type MutationHost, type MutationTarget, type OptimisticUpdate, type Sent } from './mutations.ts';
import type { EngineOfQueue, MutationQueue, Offline, QueuePlace } from './offline.ts';
import { isPage } from './page.ts';
import { type InputOf, type MutationPath, type OnQuery, type Procedures, pageStorage } from './reactive.ts';
import { ShownMutation, updatesOf } from './shown.ts';
import { escaped, type KeyValueStorage } from './store.ts';
import { pause } from './tasks.ts';
import { type Refusal, type Waiting, WaitingStore } from './waiting.ts';

/** A mutation that waits, or has waited. */
export interface QueuedMutation<Path extends string = string, Input = unknown> {
  readonly path: Path;
  readonly input: Input;
  /** Its idempotency key, the same in each tab and after a reload. */
  readonly key: string;
  readonly madeAt: Date;
}

/** A mutation that waits no more, and was not made, as far as can be told. */
export type RejectedMutation<Path extends string = string, Input = unknown> = QueuedMutation<Path, Input> &
  Pick<Refusal, 'mayBeMade'>;

/** Says how a mutation shows while it waits, in any tab and after a reload. */
export type QueuedUpdate<P extends Procedures, Path extends MutationPath<P>> = (
  input: InputOf<P, Path>,
  on: OnQuery<P>,
  about: QueuedMutation<Path, InputOf<P, Path>>,
) => void;

export interface QueueOptions<P extends Procedures = Procedures> {
  /** Which mutations may wait, by their paths: true, or how each shows while it does. */
  readonly mutations: { readonly [Path in MutationPath<P>]?: true | QueuedUpdate<P, Path> };
  /** Called, in each tab, if one that has waited was refused, or nobody can tell: `OUTCOME_UNKNOWN`. */
  readonly onRejected?: (
    mutation: { [Path in MutationPath<P>]: RejectedMutation<Path, InputOf<P, Path>> }[MutationPath<P>],
    error: ReactiveError,
  ) => void;
  /** For how long the server remembers a key, as `Settings.idempotency_seconds` has it: a day. */
  readonly idempotencySeconds?: number;
}

/** Return what `createReactive` takes as `offline`: the mutations that are named wait for the network. */
export function queue<P extends Procedures>(options: QueueOptions<P>): Offline {
  return (engine, place, shows) => new Queue(options as unknown as AnyOptions, engine, place, shows);
}

interface AnyOptions {
  readonly mutations: Readonly<Record<string, true | QueuedUpdate<Procedures, never> | undefined>>;
  readonly onRejected?: (mutation: RejectedMutation, error: ReactiveError) => void;
  readonly idempotencySeconds?: number;
}

interface Held {
  waiting: Waiting;
  readonly shown: ShownMutation<MutationTarget>;
  /** Who called it in this page; null if it is another tab's, or of before a reload. */
  readonly caller: { resolve(value: unknown): void; reject(error: unknown): void } | null;
  /** Runs while it is in storage no more, and no tab has told of its outcome. */
  missing: ReturnType<typeof setTimeout> | null;
}

/** What tabs tell each other. */
type Message =
  /** Something was added, or is being sent. */
  | { readonly type: 'look' }
  /** Whoever sends should try now. */
  | { readonly type: 'nudge' }
  | { readonly type: 'made'; readonly id: string; readonly answer: Sent<unknown> }
  | { readonly type: 'refused'; readonly id: string; readonly refusal: Refusal }
  /** The caller has logged out. */
  | { readonly type: 'end' };

const DAY_SECONDS = 86_400;
/** A request may be under way for as long, so the server must remember the key for longer than a try may begin. */
const UNDER_WAY_SECONDS = 60;
/** How long an outcome may be under way from tab to tab. */
const TELLING_MS = 2000;
/** The longest that a timer runs: until something happens. */
const UNTIL_NUDGED_MS = 2_147_483_647;

export class Queue implements MutationQueue {
  readonly #options: AnyOptions;
  readonly #engine: EngineOfQueue;
  readonly #shows: MutationHost<MutationTarget>;
  readonly #codecs: NonNullable<QueuePlace['codecs']>;
  readonly #store: WaitingStore;
  readonly #locks: Pick<LockManager, 'request'> | null;
  readonly #name: string;
  readonly #channel: { postMessage(message: Message): void; close(): void } | null;
  readonly #held = new Map<string, Held>();
  /** Those whose outcome is known: storage may have one for a moment longer, or again, of a tab that crashed. */
  readonly #over = new Set<string>();
  /** Aborted while the page is frozen, left, or closed; and when its caller is gone. */
  #control = new AbortController();
  #isWorking = false;
  #isEnded = false;
  /** What the sender waits for. */
  #rest: AbortController | null = null;
  #isHeldOff = false;
  /** How many the page was told of. */
  #counted = 0;
  #unfollow = (): void => {};

  constructor(options: AnyOptions, engine: EngineOfQueue, place: QueuePlace, shows: MutationHost<MutationTarget>) {
    this.#shows = shows;
    this.#options = options;
    const { browser = browserOfPage(), identity = null, storage = 'local', codecs = {} } = place;
    this.#engine = engine;
    this.#codecs = codecs;
    const { locks = null, openChannel } = browser ?? {};
    this.#locks = locks;
    // Without locks two tabs would send at once: right by the key, but for a refusal that one tells too early.
    const isPossible = locks !== null && openChannel !== undefined;
    this.#store = new WaitingStore({ storage: () => storageOf(storage), identity: isPossible ? identity : null });
    this.#name = `rx:${escaped(identity ?? '')}:out`;
    this.#channel = isPossible && identity ? openChannel(this.#name, (data) => this.#hear(data as Message)) : null;
    this.#look();
    this.#work();
    if (this.#channel === null) return;
    // There is a stream again, or a network.
    let wasReachable = this.#isReachable;
    const stop = engine.onStatus(() => {
      if (this.#isReachable && !wasReachable) this.nudge();
      wasReachable = this.#isReachable;
    });
    const left = leavings(this);
    // Within `cache.build`, after the engine has adopted it: what waits is in the first render.
    const ignore = engine.client.getQueryCache().subscribe(({ type }) => {
      if (type === 'added') this.appeared();
    });
    // Those that were in the cache before.
    queueMicrotask(() => this.appeared());
    this.#unfollow = () => {
      stop();
      left();
      ignore();
    };
  }

  /** How many wait, those of other tabs too. */
  get size(): number {
    return [...this.#held.values()].filter(({ missing }) => missing === null).length;
  }

  add(
    path: string,
    json: unknown,
    updates: readonly OptimisticUpdate[],
    { key, signal }: Pick<MutationOptions, 'key' | 'signal'>,
  ): Promise<unknown> | null {
    if (this.#isEnded || this.#channel === null || !Object.hasOwn(this.#options.mutations, path)) return null;
    if (signal?.aborted) return Promise.reject(signal.reason);
    const waiting = this.#store.add({ path, json, scope: this.#engine.scope, key });
    // It cannot wait: it is sent at once, or fails; but it never overtakes those that wait.
    if (waiting === null) return this.size === 0 ? null : Promise.reject(full(path));
    const done = new Promise<unknown>((resolve, reject) => {
      signal?.addEventListener('abort', () => reject(signal.reason));
      this.#hold(waiting, { resolve, reject }, updates);
    });
    this.#count();
    this.#say({ type: 'look' });
    if (!this.#isHeldOff) this.nudge();
    return done;
  }

  appeared(): void {
    for (const { shown } of this.#held.values()) shown.look();
  }

  nudge(): void {
    if (this.#control.signal.aborted) return;
    this.#rest?.abort();
    // A tab may have crashed before it told of what it had stored.
    if (this.#look().length === 0) return;
    this.#say({ type: 'nudge' });
    this.#work();
  }

  suspend(): void {
    this.#control.abort();
    this.#stopTimers();
  }

  resume(): void {
    if (this.#isEnded || !this.#control.signal.aborted) return;
    this.#control = new AbortController();
    this.#look();
    // What other tabs have told meanwhile was not heard: they have told their pages.
    for (const held of [...this.#held.values()]) if (held.missing !== null) this.#vanish(held, false);
    this.nudge();
  }

  reidentify(isGone: boolean): void {
    if (!isGone) return this.nudge();
    if (this.#isEnded) return;
    this.#say({ type: 'end' });
    this.#end();
  }

  close(): void {
    this.#control.abort();
    this.#stopTimers();
    this.#unfollow();
    this.#channel?.close();
  }

  // -- what waits

  /** Hold what storage has, also of other tabs, and nothing else. */
  #look(): readonly Held[] {
    if (this.#isEnded) return [];
    const all = this.#store.all();
    for (const { id } of all) if (this.#over.has(id)) this.#store.remove(id);
    const waits = all.filter(({ id }) => !this.#over.has(id));
    const found = waits.map((waiting) => {
      const held = this.#held.get(waiting.id) ?? this.#hold(waiting, null, []);
      this.#update(held, waiting);
      return held;
    });
    for (const held of this.#held.values()) {
      if (!found.includes(held) && !this.#control.signal.aborted)
        held.missing ??= setTimeout(() => this.#vanish(held), TELLING_MS);
    }
    this.#count();
    return found;
  }

  #count(): void {
    const more = this.size - this.#counted;
    this.#counted += more;
    if (more !== 0) this.#engine.count(more);
  }

  #stopTimers(): void {
    for (const held of this.#held.values()) {
      if (held.missing !== null) clearTimeout(held.missing);
      held.missing = null;
    }
  }

  #update(held: Held, waiting: Waiting): void {
    const isSent = held.waiting.triedAt !== null;
    held.waiting = waiting;
    if (waiting.triedAt !== null && !isSent) held.shown.become('opSent');
  }

  #hold(waiting: Waiting, caller: Held['caller'], updates: readonly OptimisticUpdate[]): Held {
    const shows = updates.length > 0 ? updates : this.#updatesOf(waiting);
    const shown = new ShownMutation(this.#shows, waiting.id, shows);
    if (waiting.triedAt !== null) shown.become('opSent');
    const held: Held = { waiting, shown, caller, missing: null };
    this.#held.set(waiting.id, held);
    return held;
  }

  #updatesOf(waiting: Waiting): readonly OptimisticUpdate[] {
    const { mutations } = this.#options;
    const update = Object.hasOwn(mutations, waiting.path) ? mutations[waiting.path] : undefined;
    if (typeof update !== 'function') return [];
    try {
      const about = this.#spoken(waiting);
      return updatesOf((on) => update(about.input as never, on as never, about as never));
    } catch (error) {
      console.error(`${waiting.path} waits, and cannot be shown`, error);
      return [];
    }
  }

  /** Return a mutation as the page knows it. */
  #spoken({ path, json, key, madeAt }: Waiting): QueuedMutation {
    return { path, input: this.#codecsOf(path)?.input?.decode(json) ?? json, key, madeAt: new Date(madeAt) };
  }

  #codecsOf(path: string): ProcedureCodecs | undefined {
    return Object.hasOwn(this.#codecs, path) ? this.#codecs[path] : undefined;
  }

  // -- sending

  /** Send what waits, as soon as no other tab does. */
  #work(): void {
    const { signal } = this.#control;
    const locks = this.#locks;
    if (this.#isWorking || this.size === 0 || signal.aborted || locks === null) return;
    this.#isWorking = true;
    let hasLock = false;
    const sent = locks.request(this.#name, { signal }, () => {
      hasLock = true;
      return this.#drain(signal);
    });
    const again = (): void => {
      this.#isWorking = false;
      this.#work();
    };
    sent.then(again, (error) => {
      // Where locks are forbidden it is sent without: the server makes each once.
      if (!hasLock && !signal.aborted) return this.#drain(signal).then(again);
      if (hasLock) console.error('mutations that wait are not sent', error);
      return again();
    });
  }

  async #drain(signal: AbortSignal): Promise<void> {
    const backoff = new Backoff();
    while (!signal.aborted) {
      const [first] = this.#look();
      if (first === undefined) return;
      const failure = this.#isReachable ? await this.#send(first, signal) : 'offline';
      if (failure === null) backoff.reset();
      else await this.#pause(failure, backoff, signal);
    }
  }

  /** Offline, a server of this machine may be there. */
  get #isReachable(): boolean {
    const { isOnline, stream } = this.#engine.status;
    return isOnline || isUp(stream);
  }

  /** Send one; returns why it goes on waiting, or null. */
  async #send(held: Held, signal: AbortSignal): Promise<ReactiveError | null> {
    const isFirst = held.waiting.triedAt === null;
    if (held.waiting.refusal !== null) {
      // The page that was to be told has crashed.
      this.#refuse(held, held.waiting.refusal);
      return null;
    }
    if (!this.#isRemembered(held.waiting)) {
      this.#refuse(held, refusalOf(unknown(held.waiting), true));
      return null;
    }
    // INVARIANT (the time of the first try is stored before it): else a try of a day later would count as the first.
    const tried = this.#store.try(held.waiting);
    if (tried === null) return full(held.waiting.path);
    this.#update(held, tried);
    this.#say({ type: 'look' });
    const outcome = await this.#call(tried, signal).catch(asRefusal);
    if (signal.aborted) return null;
    if (!(outcome instanceof ReactiveError)) this.#make(held, outcome);
    else if (isPassing(outcome)) return outcome;
    else if (isOfAnother(outcome)) this.#engine.reidentify('another', null);
    else this.#refuse(held, refusalOf(outcome, !isFirst || mayBeMade(outcome)));
    return null;
  }

  async #call({ path, json, key, scope }: Waiting, signal: AbortSignal): Promise<Sent<unknown>> {
    const output = this.#codecsOf(path)?.output;
    const written = await this.#engine.calls.mutate(path, json, { key, scope, signal, parse: output?.parse });
    const known = this.#engine.scope;
    // The server has named nobody before, so nobody could refuse it.
    const isOther = known !== null && written.scope !== null && written.scope !== known;
    if (isOther && !signal.aborted) this.#engine.reidentify('another', written.scope);
    const isJson = output !== undefined && !written.isTransformed;
    return { value: isJson ? output.decode(written.json) : written.json, version: written.version };
  }

  /** Tell whether the server would know it again, if it was sent before. */
  #isRemembered({ triedAt }: Waiting): boolean {
    const { idempotencySeconds = DAY_SECONDS } = this.#options;
    // A clock that was set back tells nothing, either.
    return triedAt === null || Math.abs(Date.now() - triedAt) < (idempotencySeconds - UNDER_WAY_SECONDS) * 1000;
  }

  async #pause(failure: ReactiveError | 'offline', backoff: Backoff, signal: AbortSignal): Promise<void> {
    const isHopeless = failure === 'offline' || failure.status === 401;
    const floorMs = failure === 'offline' ? 0 : failure.retryAfterSeconds * 1000;
    this.#isHeldOff = floorMs > 0;
    this.#rest = new AbortController();
    const milliseconds = isHopeless ? UNTIL_NUDGED_MS : floorMs + backoff.nextDelay();
    await pause(milliseconds, AbortSignal.any([signal, this.#rest.signal]));
    this.#rest = null;
    this.#isHeldOff = false;
  }

  // -- outcomes

  #make(held: Held, answer: Sent<unknown>): void {
    // INVARIANT (told before it is removed): a tab that misses it in storage has its outcome under way.
    this.#say({ type: 'made', id: held.waiting.id, answer });
    this.#made(held, answer);
  }

  #made(held: Held, answer: Sent<unknown>): void {
    this.#leave(held);
    held.shown.answered(answer.version);
    held.caller?.resolve(answer.value);
  }

  #refuse(held: Held, refusal: Refusal): void {
    // INVARIANT (noted before it is told, told before it is removed): a page that ends between two of them leaves it to
    // the next one to tell, and that one must not send it: the server may think otherwise by then.
    this.#store.refuse(held.waiting, refusal);
    this.#say({ type: 'refused', id: held.waiting.id, refusal });
    this.#tell(held, refusal);
  }

  /** Take it out of the queue, and tell the page why. */
  #tell(held: Held, { error: { code, message, ...about }, mayBeMade }: Refusal, isTold = true): void {
    const error = new ReactiveError(code, message, about);
    try {
      if (isTold) this.#options.onRejected?.({ ...this.#spoken(held.waiting), mayBeMade }, error);
    } catch (fault) {
      console.error('onRejected has failed', fault);
    }
    this.#leave(held);
    held.shown.become(mayBeMade ? 'opLost' : 'opRejected');
    held.caller?.reject(error);
  }

  /** It is in storage no more, and no tab tells why. */
  #vanish(held: Held, isTold = true): void {
    if (this.#held.get(held.waiting.id) === held)
      this.#tell(held, held.waiting.refusal ?? refusalOf(unknown(held.waiting), true), isTold);
  }

  #leave({ waiting, missing }: Held): void {
    if (missing !== null) clearTimeout(missing);
    this.#store.remove(waiting.id);
    this.#over.add(waiting.id);
    this.#held.delete(waiting.id);
    this.#count();
  }

  /** The caller is gone: nothing of theirs stays, or is sent. */
  #end(): void {
    this.#isEnded = true;
    this.#control.abort();
    this.#store.clear();
    this.#stopTimers();
    const all = [...this.#held.values()];
    this.#held.clear();
    for (const { shown, caller, waiting } of all) {
      shown.become('opRejected');
      caller?.reject(new ReactiveError('ABORTED', `${waiting.path} was not sent: its caller is gone`));
    }
    this.#channel?.close();
    this.#count();
  }

  // -- tabs

  #say(message: Message): void {
    try {
      this.#channel?.postMessage(message);
    } catch {
      // A value that no other tab can have: there it shows once it is fetched.
      if (message.type === 'made') this.#say({ ...message, answer: { ...message.answer, value: undefined } });
    }
  }

  #hear(message: Message): void {
    if (this.#isEnded) return;
    if (message.type === 'look') this.#look();
    if (message.type === 'nudge' && !this.#isHeldOff) this.#rest?.abort();
    if (message.type === 'end') this.#end();
    if (message.type !== 'made' && message.type !== 'refused') return this.#work();
    const held = this.#held.get(message.id);
    this.#over.add(message.id);
    if (held === undefined) return;
    if (message.type === 'made') this.#made(held, message.answer);
    else this.#tell(held, message.refusal);
  }
}

/** Tell of a page that is frozen, or left, and may come back, until the function that is returned is called. */
function leavings(queue: Pick<Queue, 'suspend' | 'resume'>): () => void {
  const end = new AbortController();
  const { signal } = end;
  if (!isPage()) return () => {};
  addEventListener('pagehide', () => queue.suspend(), { signal });
  addEventListener('pageshow', () => queue.resume(), { signal });
  document.addEventListener('freeze', () => queue.suspend(), { signal });
  document.addEventListener('resume', () => queue.resume(), { signal });
  return () => end.abort();
}

/** Return what the page has for tabs; not by `browser.ts`, which would be carried at the start, and by every page. */
function browserOfPage(): QueuePlace['browser'] {
  // Locks are there in secure contexts only, and neither in some old browsers.
  const { locks } = (isPage() ? navigator : {}) as { readonly locks?: LockManager };
  const openChannel = (name: string, onMessage: (data: unknown) => void): BroadcastChannel => {
    const channel = new BroadcastChannel(name);
    channel.onmessage = ({ data }) => onMessage(data);
    return channel;
  };
  return locks && { locks, openChannel };
}

function storageOf(storage: NonNullable<QueuePlace['storage']>): KeyValueStorage | undefined {
  if (typeof storage !== 'string') return storage;
  return storage === 'none' ? undefined : pageStorage(`${storage}Storage`);
}

/** Return why one was not made. What is no error of the call is one of reading its answer. */
function asRefusal(thrown: unknown): ReactiveError {
  if (thrown instanceof ReactiveError) return thrown;
  const message = `it was made, and its answer cannot be read: ${asError(thrown).message}`;
  return new ReactiveError('WIRE_ERROR', message, { status: 200, cause: thrown });
}

/** Tell whether the same mutation may be made a little later. */
function isPassing(error: ReactiveError): boolean {
  const isRunning = error.status === 409 && isObject(error.details) && error.details['retry'] === true;
  // One that was answered, and cannot be read, was made.
  const isUnreadable = error.code === 'WIRE_ERROR' && error.status === 200;
  return (error.isTransient && !isUnreadable) || error.status === 401 || isRunning;
}

/** Tell whether a refusal may be of one that was made: a CONFLICT of one whose answer was not kept, for example. */
function mayBeMade(error: ReactiveError): boolean {
  return !isRefusal(error) || error.status === 409;
}

function refusalOf({ code, message, status, type, details }: ReactiveError, mayBeMade: boolean): Refusal {
  return { error: { code, message, status, type, details }, mayBeMade };
}

function unknown({ path, triedAt, madeAt }: Waiting): ReactiveError {
  const when = new Date(triedAt ?? madeAt).toISOString();
  return new ReactiveError('OUTCOME_UNKNOWN', `nobody can tell whether ${path} of ${when} was made`);
}

/** Tell whether the server has another caller before it than who made the mutation. */
function isOfAnother({ status, details }: ReactiveError): boolean {
  return status === 412 && isObject(details) && details['caller'] === 'another';
}

function full(path: string): ReactiveError {
  return new ReactiveError('STORAGE_FULL', `${path} cannot wait behind others: there is no room for it in storage`);
}
