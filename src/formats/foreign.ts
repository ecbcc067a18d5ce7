import type { SecretType } from "../protocol/secrettype.ts";
import type { Kept, PlainItem, ReadResult } from "./item.ts";

/** What a reader or writer of a foreign format may ask for while it works; each is asked for at most once a file. */
export interface Asks {
  /** The password of an encrypted file, the caller's to wipe. @throws Fault usage where none can be had */
  password(): Promise<Uint8Array>;
  /** Private keys for a file that is sealed to keys: lines of an age identity file, or an OpenSSH private key. */
  identities(): Promise<readonly Uint8Array[]>;
  /** Progress of long work, from 0 to 1. */
  progress(done: number): void;
}

/** Options of a read. */
export interface ForeignReadOptions {
  /** Name for the one secret of a `single` file. */
  readonly name: string | null;
  /** Columns of a table and the fields that they become (`--map user=login,url=site`). */
  readonly map: ReadonlyMap<string, string>;
  readonly asks: Asks;
}

/** Options of a write. */
export interface ForeignWriteOptions {
  /** Keys to seal to: `age1…`, `ssh-ed25519 …`, `ssh-rsa …`; none: by password. */
  readonly recipients: readonly string[];
  readonly asks: Asks;
}

/** What writing gave. */
export interface Written {
  /** The whole file; the caller wipes it. */
  readonly file: Uint8Array;
  /** What had no place in the format; never a value. */
  readonly lost: readonly { readonly what: string }[];
  /** True where the writer opened and compared the file itself, since only others have the keys to it. */
  readonly checked?: true;
}

/** A format of other programs, or one that is encrypted: read and written asynchronously, loaded when it is needed. */
export interface ForeignFormat {
  readonly name: string;
  /** `tree`: a directory, of which `read` gets the path. */
  readonly kind: "single" | "many" | "tree";
  readonly binary: boolean;
  /** True where the content of a file is encrypted. */
  readonly encrypted: boolean;
  /** Types that it can write; others are refused, or reduced and named among what is lost. */
  readonly types: readonly SecretType[];
  readonly keeps: readonly Kept[];
  /** True when the bytes (the first 64 KiB at least), or the directory's path, name the format themselves. */
  sniff(start: Uint8Array, path: string): boolean;
  /**
   * Reads a whole file, or for a `tree` a directory; all of it or nothing.
   *
   * @throws Fault bad_input, too_large, unsupported, wrong_password
   */
  readonly read?: (source: Uint8Array | string, options: ForeignReadOptions) => Promise<ReadResult>;
  /** Writes a whole file. @throws Fault bad_input, too_large */
  readonly write?: (items: readonly PlainItem[], options: ForeignWriteOptions) => Promise<Written>;
  /** Whether an item that was read back is the one that was written; left out: by its value and what is kept. */
  same?(written: PlainItem, read: PlainItem): boolean;
}

export type { PlainItem, ReadResult };
