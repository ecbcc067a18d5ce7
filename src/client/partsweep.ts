import { Fault } from "../errors.ts";
import type { KeyId } from "../ids.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import type { Written } from "./api.ts";
import { metaChange, noSuchSecret } from "./changes.ts";
import type { Model, Secret } from "./model.ts";
import type { Open } from "./opened.ts";
import { type Place, write } from "./placing.ts";
import { removeSecret } from "./writing.ts";

/** Tag of the last part of a file: it comes in with the file itself, so parts without one belong to nothing. */
export const endTag = "end";

/** Longer than any upload takes: parts of a younger one may be another device's that is at work. */
const UPLOAD_MS = 86_400_000;

/** Erases parts, in as few requests as there can be. */
export async function purgeParts(open: Open, ids: readonly KeyId[], place: Place = "server"): Promise<void> {
  const step = place === "local" ? Math.max(1, ids.length) : DEFAULTS.changesPerRequest;
  for (let at = 0; at < ids.length; at += step) {
    const batch = ids.slice(at, at + step).filter((id) => isLive(open.box.model, id));
    if (batch.length === 0) continue;
    await write(open, place, "secret.purge", (model) =>
      batch.map((id) => {
        const part = model.secrets.get(id);
        if (!part?.meta) throw noSuchSecret();
        return metaChange(model, part, part.meta, "purged", open.around.random);
      }),
    );
  }
}

const isLive = (model: Model, id: KeyId): boolean => model.secrets.get(id)?.leaf.status === "live";

function partsBy(model: Model, wanted: (part: Secret & { meta: NonNullable<Secret["meta"]> }) => boolean): Secret[] {
  return [...model.secrets.values()].filter(
    (one) => one.meta?.type === "part" && one.leaf.status === "live" && wanted({ ...one, meta: one.meta }),
  );
}

const idsOf = (parts: readonly Secret[], place: Place): KeyId[] =>
  parts.filter((part) => part.place === place).map(({ leaf }) => leaf.keyId);

/** Parts that belong to no file: of one that was purged, and of an upload that was cut short a day ago or more. */
export function orphans(model: Model, nowMs: number): readonly Secret[] {
  const uploads = new Map<string, { ended: boolean; newestMs: number }>();
  const idOf = (tags: readonly string[]): string => tags[0] ?? "";
  for (const { meta } of partsBy(model, () => true)) {
    const known = uploads.get(idOf(meta?.tags ?? [])) ?? { ended: false, newestMs: 0 };
    uploads.set(idOf(meta?.tags ?? []), {
      ended: known.ended || (meta?.tags.includes(endTag) ?? false),
      newestMs: Math.max(known.newestMs, meta?.updatedAtMs ?? 0),
    });
  }
  return partsBy(model, ({ meta }) => {
    const file = model.secrets.get(meta.name as KeyId);
    const upload = uploads.get(idOf(meta.tags));
    if (file?.leaf.status === "purged") return true;
    return upload?.ended === false && nowMs - upload.newestMs > UPLOAD_MS;
  });
}

/** Erases what {@link orphans} finds on the server; what cannot be done now is left to the next time. */
export async function sweepParts(open: Open): Promise<void> {
  if (open.session === null) return;
  try {
    await purgeParts(open, idsOf(orphans(open.box.model, open.around.now()), "server"));
  } catch (error) {
    if (!(error instanceof Fault) || error.code === "integrity") throw error;
  }
}

/**
 * Removes a secret; with `purge` the parts of a file too. The file goes first: cut short in between, there is no half
 * file to read, and its parts name one that is purged, so that the next sweep takes them.
 */
export async function removeWithParts(open: Open, input: { name: string; purge: boolean }): Promise<Written> {
  const done = await removeSecret(open, input);
  if (!input.purge) return done;
  const parts = partsBy(open.box.model, ({ meta }) => meta.name === done.info.keyId);
  await purgeParts(open, idsOf(parts, "local"), "local");
  await purgeParts(open, idsOf(parts, "server"));
  return done;
}
