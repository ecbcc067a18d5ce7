import { createHash, type Hash } from "node:crypto";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { KeyId, RequestId } from "../ids.ts";
import type { FileParts } from "../protocol/content.ts";
import type { FileOpen, FileOpened } from "./api.ts";
import { infoOf, noSuchSecret, openChecked, secretOf } from "./changes.ts";
import type { Change } from "./commit.ts";
import { fetchSealed } from "./fetching.ts";
import type { Model, Secret } from "./model.ts";
import { type Online, type Open, online, save } from "./opened.ts";
import { viewOf } from "./overlay.ts";
import { catchUp, lookUp, readVersion, syncedAt, withheld } from "./reading.ts";

/** Parts of one piece that is read. */
const READ_PARTS = 16;

/** A file that is read. */
export interface Reading {
  readonly kind: "reading";
  readonly input: FileOpen;
  readonly keyId: KeyId;
  readonly file: FileParts;
  /** A value that has no parts. */
  value: Uint8Array | null;
  next: number;
  read: number;
  readonly hash: Hash;
  touchedMs: number;
}

/** Finds a secret and what it is kept in. @throws Fault not_found */
export async function openFile(
  open: Open,
  input: FileOpen,
): Promise<{ reading: Reading; opened: Omit<FileOpened, "handle"> }> {
  return online(open, input.fresh, async (at) => {
    for (let attempt = 0; ; attempt++) {
      const found = await withheld(open, at, () => openOnce(open, input, at));
      // the answer itself may tell that another device wrote meanwhile: then look again
      if (at === null || found.opened.from === "vault" || !(await catchUp(open, at)) || attempt === 3) return found;
      wipe(found.reading.value ?? undefined);
    }
  });
}

async function openOnce(
  open: Open,
  input: FileOpen,
  at: Online | null,
): Promise<{ reading: Reading; opened: Omit<FileOpened, "handle"> }> {
  const secret = await lookUp(open, input.name, at);
  const { keyId } = secret.leaf;
  const version = input.version ?? secret.leaf.version;
  const read = await readVersion(open, secret, version, secret.place === "local" ? null : at);
  const file = read.file ?? { size: read.value.length, sha256: new Uint8Array(0), parts: [] };
  const value = read.file ? null : read.value;
  const hash = createHash("sha256");
  const touchedMs = open.around.now();
  return {
    reading: { kind: "reading", input, keyId, file, value, next: 0, read: 0, hash, touchedMs },
    opened: {
      info: infoOf(secretOf(viewOf(open.box.model), keyId)),
      version,
      size: file.size,
      fields: read.fields,
      requestId: read.requestId,
      from: secret.place === "server" && at ? "server" : "vault",
      syncedAt: syncedAt(open),
    },
  };
}

/** The next piece of a file; with the last one the whole is verified. @throws Fault integrity */
export async function readPiece(
  open: Open,
  reading: Reading,
): Promise<{ value: Uint8Array; done: boolean; requestId: RequestId | null }> {
  if (reading.value !== null) {
    const { value } = reading;
    reading.value = null;
    return { value, done: true, requestId: null };
  }
  const { file, keyId } = reading;
  const ids = file.parts.slice(reading.next, reading.next + READ_PARTS);
  const operation = reading.input.purpose === "export" ? "secret.export" : "secret.get";
  const { parts, requestId } = await readParts(open, keyId, ids, operation, reading.input.fresh);
  try {
    const length = parts.reduce((sum, part) => sum + part.length, 0);
    const value = new Uint8Array(length);
    let at = 0;
    for (const part of parts) {
      value.set(part, at);
      at += part.length;
    }
    reading.next += ids.length;
    reading.read += length;
    reading.hash.update(value);
    const done = reading.next >= file.parts.length;
    if (reading.read > file.size || (done && !isWhole(reading))) {
      wipe(value);
      throw new Fault("integrity", "the parts of a file do not give the file that was stored");
    }
    return { value, done, requestId };
  } finally {
    wipe(...parts);
  }
}

function isWhole({ read, file, hash }: Reading): boolean {
  return read === file.size && Buffer.compare(hash.digest(), file.sha256) === 0;
}

/** Some parts of a file, opened; the caller wipes them. */
function readParts(
  open: Open,
  keyId: KeyId,
  ids: readonly KeyId[],
  operation: "secret.get" | "secret.export",
  fresh: boolean,
): Promise<{ parts: Uint8Array[]; requestId: RequestId | null }> {
  const place = secretOf(viewOf(open.box.model), keyId, { removed: true }).place;
  return online(open, fresh, (at) =>
    withheld(open, at, async () => {
      const secrets = ids.map((id) => partOf(open.box.model, keyId, id));
      const wanted = secrets.map(({ leaf }) => ({ keyId: leaf.keyId, version: leaf.version }));
      const fetched = at && place !== "local" ? await fetchSealed(at.session, operation, wanted) : null;
      const parts: Uint8Array[] = [];
      try {
        for (const [i, secret] of secrets.entries()) {
          const sealed = fetched ? fetched.sealed[i] : copyOf(secret);
          if (!sealed || !secret.meta) throw noSuchSecret();
          parts.push(openChecked(open.box.model, secret.leaf, secret.meta, sealed).value);
        }
        return { parts, requestId: fetched?.requestId ?? null };
      } catch (error) {
        wipe(...parts);
        throw error;
      }
    }),
  );
}

/** A part as the account holds it. @throws Fault not_found once purged, integrity when it is another file's */
function partOf(model: Model, file: KeyId, id: KeyId): Secret {
  const found = model.secrets.get(id);
  if (found?.leaf.status === "purged") throw new Fault("not_found", "the file was purged meanwhile");
  if (found?.meta?.type === "part" && found.meta.name === file) return found;
  throw new Fault("integrity", "a part of a file is not there, or another secret is in its place");
}

function copyOf(secret: Secret): Uint8Array {
  const sealed = secret.place === "local" ? secret.values.at(-1)?.sealed : secret.sealed;
  if (sealed) return sealed;
  throw new Fault("unreachable", "the server is away and the vault keeps no copy of this file", {
    hint: "keyhold get NAME --save keeps one next time",
  });
}

/** Keeps copies of a file's parts in the vault, where it is kept in parts. */
export async function keepParts(open: Open, keyId: KeyId): Promise<void> {
  const secret = secretOf(open.box.model, keyId);
  if (secret.place !== "server" || secret.meta?.form !== "parts" || open.session === null) return;
  await online(open, true, (at) =>
    withheld(open, at, async () => {
      if (!at) return;
      const { file } = await readVersion(open, secret, secret.leaf.version, at);
      if (!file) return;
      const missing = file.parts
        .map((id) => partOf(open.box.model, keyId, id))
        .filter((part) => part.place === "server" && part.sealed === null);
      const copies: Change[] = [];
      for (let i = 0; i < missing.length; i += READ_PARTS) {
        const parts = missing.slice(i, i + READ_PARTS);
        const wanted = parts.map(({ leaf }) => ({ keyId: leaf.keyId, version: leaf.version }));
        const { sealed } = await fetchSealed(at.session, "secret.get", wanted);
        for (const [k, { leaf, meta }] of parts.entries()) {
          const one = sealed[k];
          if (!one || !meta) throw noSuchSecret();
          wipe(openChecked(open.box.model, leaf, meta, one).value);
          copies.push({ leaf, sealed: one, keep: true });
        }
      }
      await keepSealed(open, copies);
    }),
  );
}

/** Puts sealed parts into the vault, where they are still the ones that the account holds. */
export async function keepSealed(open: Open, changes: readonly Change[]): Promise<void> {
  await save(open, (model) => {
    for (const { leaf, sealed } of changes) {
      const now = model.secrets.get(leaf.keyId);
      const same = now?.place === "server" && Buffer.compare(now.leaf.sealedHash, leaf.sealedHash) === 0;
      if (same && now.leaf.status === "live") model.secrets.set(leaf.keyId, { ...now, sealed });
    }
  });
}
