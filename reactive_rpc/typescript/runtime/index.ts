/** The one import of the runtime. */

export type { Codec } from './codec.ts';
export type { Credentials } from './credentials.ts';
export type { ProcedureCodecs } from './engine.ts';
export { ReactiveError } from './errors.ts';
export { reactiveHeaders } from './gate.ts';
export type { Page } from './intervals.ts';
export { type Named, procedureNames } from './keys.ts';
export { reactiveFetch } from './links.ts';
export type { Offline } from './offline.ts';
export {
  infinite,
  Pages,
  type PagesInput,
  type PagesOptions,
  type PagesPath,
  type PagesState,
  type RowOf,
} from './pages.ts';
export { type QueuedMutation, type QueuedUpdate, type QueueOptions, queue, type RejectedMutation } from './queue.ts';
export type {
  Args,
  CallOptions,
  InputOf,
  MutationPath,
  OnQuery,
  OutputOf,
  Persist,
  Procedures,
  QueryPath,
  ReactiveOptions,
  Status,
} from './reactive.ts';
export { createReactive, LiveQuery, Reactive } from './reactive.ts';
export { dehydrateReactive } from './rendering.ts';
export type { State } from './state.ts';
export type { KeyValueStorage } from './store.ts';
