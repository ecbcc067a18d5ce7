import type { DealtKey } from "./transcript.ts";

/** What the other dealers of a ceremony gave this server, all of it verified. */
export interface Received {
  /** First messages of the dealers other than this server, ascending by index. */
  readonly commits: readonly {
    readonly from: number;
    readonly commitments: readonly Uint8Array[];
    readonly proof: Uint8Array;
  }[];
  /** Shares for this server by dealer; 32 bytes each. */
  readonly shares: ReadonlyMap<number, Uint8Array>;
}

/** One server's secret part in a ceremony. It lives in memory alone; nothing here can be written down or read back. */
export interface Dealing {
  /** What it says first; both empty where it deals nothing. */
  readonly commitments: readonly Uint8Array[];
  readonly proof: Uint8Array;
  /** The shares for the other receivers, once all first messages are known; of 32 bytes, this object's to wipe. */
  deal(commits: Received["commits"]): ReadonlyMap<number, Uint8Array>;
  /** Ends it: the key, and this server's share, the caller's to wipe; null where it is no receiver. */
  finish(received: Received): DealtKey & { readonly share: Uint8Array | null };
  wipe(): void;
}
