import { Fault } from "../errors.ts";
import type { Listed, ListInput } from "./api.ts";
import { infoOf } from "./changes.ts";
import type { Meta } from "./meta.ts";
import type { Model, Secret } from "./model.ts";
import { type Open, online, save } from "./opened.ts";
import { viewOf } from "./overlay.ts";
import { syncedAt } from "./reading.ts";
import { synchronise } from "./sync.ts";
import { refresh } from "./vaultbox.ts";

/**
 * The secrets that fit, by name (docs/client.md); a page of them with `limit`, whose `next` leads to the one after.
 * Only the first page asks the server: those after it belong to what that one saw.
 *
 * @throws Fault stale for a cursor into what has changed since; bad_input for one that is none.
 */
export function listSecrets(open: Open, input: ListInput): Promise<Listed> {
  if (input.cursor) return furtherPage(open, input);
  return online(open, input.fresh, async (at) => {
    if (!at) return paged(open, input, "vault", null);
    const before = open.box.model.bound?.head.state.revision;
    const { answer } = await synchronise(open.box.model, at.session, open.around, "secret.list");
    if (open.box.model.bound?.head.state.revision !== before) await save(open);
    return paged(open, input, "server", answer.requestId);
  });
}

async function furtherPage(open: Open, input: ListInput): Promise<Listed> {
  refresh(open.box);
  return paged(open, input, "vault", null);
}

function paged(open: Open, input: ListInput, from: Listed["from"], requestId: Listed["requestId"]): Listed {
  const start = input.cursor ? positionOf(open, input.cursor) : 0;
  const all = fitting(viewOf(open.box.model), input);
  const limit = input.limit ?? null;
  const answer = { requestId, from, syncedAt: syncedAt(open) };
  if (limit === null && start === 0) return { items: all.map((one) => infoOf(one)), ...answer };
  const end = limit === null ? all.length : start + limit;
  const next = end < all.length ? `${stampOf(open)}.${end}` : null;
  return { items: all.slice(start, end).map((one) => infoOf(one)), next, ...answer };
}

/** What changes with every change of the account or the vault. */
function stampOf({ box }: Open): string {
  return `${box.vault.generation}.${box.model.bound?.head.state.revision ?? 0}`;
}

function positionOf(open: Open, cursor: string): number {
  const [, stamp, position] = /^(\d{1,16}\.\d{1,16})\.(\d{1,9})$/.exec(cursor) ?? [];
  if (stamp === undefined) {
    throw new Fault("bad_input", "this is not a cursor", { hint: "pass the `next` of the page before" });
  }
  if (stamp !== stampOf(open)) throw new Fault("stale", "the list has changed since its first page");
  return Number(position);
}

/** Live secrets that the filters let through, sorted by name. */
function fitting(model: Model, input: ListInput): Secret[] {
  const prefix = input.prefix?.normalize("NFC") ?? "";
  const wanted = input.search?.normalize("NFC").toLowerCase() ?? null;
  const tag = input.tag?.normalize("NFC") ?? null;
  const named: { readonly name: string; readonly secret: Secret }[] = [];
  for (const secret of model.secrets.values()) {
    const { leaf, meta } = secret;
    if (leaf.status !== "live" || meta === null || meta.type === "part") continue;
    if (!meta.name.startsWith(prefix) || (tag !== null && !meta.tags.includes(tag))) continue;
    if (wanted === null || holds(meta, wanted)) named.push({ name: meta.name, secret });
  }
  named.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  return named.map(({ secret }) => secret);
}

/** Whether a search finds a secret: by name, tags, user or URLs. */
function holds({ name, tags, user, urls }: Meta, wanted: string): boolean {
  if (name.toLowerCase().includes(wanted)) return true;
  return [...tags, user ?? "", ...urls].some((text) => text.toLowerCase().includes(wanted));
}
