import { ZERO_HASH_BYTES } from "../crypto/bytes.ts";
import type { Content } from "../protocol/content.ts";
import { contentOf } from "./changes.ts";
import type { Model, QueuedSecret, Secret, ServerSecret } from "./model.ts";
import { recordKeys } from "./model.ts";
import { openEntry, type QueueEntry } from "./queue.ts";

/**
 * The model as it will be once what waits for the server has gone there; the model itself where nothing waits. To look
 * at, never to be written. Of two secrets of one name it shows the one that waits.
 */
export function viewOf(model: Model): Model {
  if (model.queue.length === 0) return model;
  const secrets = new Map(model.secrets);
  for (const entry of model.queue) {
    const shown = withEntry(secrets.get(entry.keyId), entry);
    secrets.set(entry.keyId, shown);
    if (entry.status !== "live" || entry.meta.type === "part") continue;
    for (const [keyId, other] of secrets) {
      const same = other.place === "server" && other.leaf.status === "live" && other.meta?.name === entry.meta.name;
      if (same && keyId !== entry.keyId) secrets.delete(keyId);
    }
  }
  return { ...model, secrets };
}

function withEntry(before: Secret | undefined, entry: QueueEntry): QueuedSecret {
  const queued = before?.place === "queued" ? before : null;
  const under: ServerSecret | null = before?.place === "server" ? before : (queued?.under ?? null);
  const version = (before?.leaf.version ?? 0) + (entry.sealed === null ? 0 : 1);
  const leaf = {
    keyId: entry.keyId,
    serial: (before?.leaf.serial ?? 0) + 1,
    version,
    sealedHash: ZERO_HASH_BYTES,
    metaHash: ZERO_HASH_BYTES,
    meta: null,
    publicKey: entry.meta.publicKey,
    status: entry.status,
    previous: ZERO_HASH_BYTES,
  };
  const waiting = [...(queued?.waiting ?? []), { version, entry }];
  return { place: "queued", leaf, meta: entry.meta, sealed: null, under, waiting };
}

/** The content of a version that waits for the server; null where it is none of those. @throws Fault integrity */
export function queuedContent(
  model: Model,
  secret: QueuedSecret,
  version: number,
): (Content & { readonly origin: string }) | null {
  const found = secret.waiting.find((one) => one.version === version && one.entry.sealed !== null);
  if (!found) return null;
  const { form, origin } = found.entry.meta;
  return { ...contentOf(form, openEntry(recordKeys(model), model.owner, found.entry)), origin };
}
