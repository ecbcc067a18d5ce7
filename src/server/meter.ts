import type { Store } from "../storage/store.ts";
import type { OpaquePool } from "./opaque.ts";

/** What the server's parts tell of their work; nothing of who asked for it. */
export interface Meter {
  /** One answered request: operation or `unknown`, `ok` or an error code, milliseconds. */
  request(operation: string, outcome: string, ms: number): void;
  /** One commit: the transactions in it and the milliseconds until it was durable. */
  committed(jobs: number, ms: number): void;
  /** The same store, its transactions counted and timed. */
  store(store: Store): Store;
  /** The same pool, its evaluations counted and timed. */
  pool(pool: OpaquePool): OpaquePool;
}
