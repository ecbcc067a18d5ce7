import type { CeremonyId } from "../../ids.ts";
import type { Tx } from "../../storage/store.ts";
import type { ControlOutput } from "../../wire/control.ts";
import { openAccountName } from "../accounts.ts";
import type { ServerContext } from "../context.ts";
import type { ControlHandlers } from "../control.ts";
import { eachStored, listStored } from "../documents.ts";
import { ENTRY, HEAD, OVER } from "./documents.ts";
import { readHead } from "./scene.ts";

const PAGE = 64;

type Row = ControlOutput<"ceremony.list">["items"][number];

async function rowOf(ctx: ServerContext, tx: Tx, id: CeremonyId): Promise<Row | undefined> {
  const at = await readHead(tx, id);
  const account = at && (await tx.account(at.ceremony.value.organiser));
  if (!account) return undefined;
  const { draft, openedAtMs } = at.ceremony.value.manifest.manifest;
  const { status, untilMs } = at.head.value;
  const bodies = (await eachStored(tx, ENTRY, id)).map(({ value }) => value.entry.entry.body.kind);
  return {
    ceremonyId: id,
    name: draft.name,
    organiser: openAccountName(ctx, account),
    status,
    untilMs,
    openedAtMs,
    seats: draft.slots.length,
    taken: bodies.filter((kind) => kind === "join").length,
  };
}

/** What the machine's operator sees of ceremonies: nothing that is secret, and nothing that only accounts may do. */
export function createCeremonyControl(ctx: ServerContext): Pick<ControlHandlers, "ceremony.list"> {
  return {
    "ceremony.list": ({ over, after }) =>
      ctx.store.transaction(async (tx) => {
        const heads = await listStored(tx, HEAD, over ? OVER : "", after, PAGE);
        const items: Row[] = [];
        for (const { id } of heads) {
          const row = await rowOf(ctx, tx, id as CeremonyId);
          if (row) items.push(row);
        }
        const last = heads.at(-1);
        return { items, next: last && heads.length === PAGE ? { place: last.place, id: last.id as CeremonyId } : null };
      }),
  };
}
