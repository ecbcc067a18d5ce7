import { Fault } from "../../errors.ts";
import { admit, findEntry } from "../../protocol/ceremony/life.ts";
import type { EntryBody } from "../../protocol/ceremony/model.ts";
import { openAccountName } from "../accounts.ts";
import { readStored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import { CLOSABLE, change, noSuchCeremony, putHead, settle, stepToReveal } from "./course.ts";
import { numbered, PART } from "./documents.ts";
import { counted } from "./limits.ts";
import { type Desk, readHead, readScene, type Scene } from "./scene.ts";
import type { KeyStoreService } from "./service.ts";

type Work = Pick<
  KeyStoreService,
  "ceremony.seat" | "ceremony.close" | "ceremony.join" | "ceremony.reveal" | "ceremony.part"
>;

/** Seats, commitments, reveals, and the organiser's word (docs/protocol.md §10.4). */
export function createTaking(desk: Desk): Work {
  const { ctx } = desk.site;

  /** What is there already, byte for byte; undefined for what may come next. @throws Fault of {@link admit} */
  const decide = ({ transcript, state, head, nowMs }: Scene, body: EntryBody) => {
    const same = findEntry(transcript, body);
    if (same) return same;
    if (head.value.closing !== null) throw new Fault("stale", "the organiser has ended the commitments");
    admit(state, body, nowMs);
    return undefined;
  };

  async function close(scene: Scene, abort: boolean): Promise<void> {
    const { state, head, id } = scene;
    const { draft } = state.manifest;
    const missing = draft.minimum - state.joins.length;
    if (state.status === "stored" || state.status === "aborted" || (abort && !CLOSABLE.has(state.status)))
      throw new Fault("conflict", `the ceremony is ${state.status}: there is nothing to end`);
    // who has closed it already wants just this
    if (!abort && state.seed !== null) return;
    if (!abort && missing > 0)
      throw new Fault("conflict", `${missing} more participants must commit before there can be a key`, {
        hint: "wait for them, or end the ceremony: keyhold ceremony close --abort",
      });
    const closing = abort ? "abort" : "freeze";
    const written = await ctx.store.transaction((tx) => putHead(tx, scene, { ...head.value, closing }, 0), id);
    if (!written) throw changedMeanwhile();
  }

  return {
    async "ceremony.seat"({ account }, { ceremonyId, index, key }) {
      const name = openAccountName(ctx, account);
      const body = { kind: "seat", index, invite: key } as const;
      const entry = await change(desk, ceremonyId, (scene) => {
        const slot = scene.state.manifest.draft.slots[index - 1];
        if (slot?.account !== name) throw new Fault("denied", `seat ${index} is not kept for this account`);
        const same = decide(scene, body);
        return same ? { entry: same } : { step: body };
      });
      return { entry };
    },

    async "ceremony.close"({ account }, { ceremonyId, abort }) {
      const at = await ctx.store.transaction((tx) => readHead(tx, ceremonyId), ceremonyId);
      if (!at) throw noSuchCeremony();
      if (at.ceremony.value.organiser !== account.userId)
        throw new Fault("denied", "only who opened a ceremony may end it");
      await settle(desk, ceremonyId);
      await desk.turns.take(ceremonyId, async () => {
        const scene = await readScene(desk, ceremonyId);
        if (!scene) throw noSuchCeremony();
        await close(scene, abort);
      });
      await settle(desk, ceremonyId);
      return {};
    },

    "ceremony.join": (remote, { join }) =>
      counted(ctx, remote, async () => {
        const body = { kind: "join", join } as const;
        const entry = await change(desk, join.join.ceremonyId, (scene) => {
          const same = decide(scene, body);
          return same ? { entry: same } : { step: body };
        });
        return { entry };
      }),

    "ceremony.reveal": (remote, { reveal, sealed }) =>
      counted(ctx, remote, async () => {
        const body = { kind: "reveal", reveal } as const;
        const entry = await change(desk, reveal.reveal.ceremonyId, async (scene) => {
          const same = decide(scene, body);
          return same ? { entry: same } : { step: await stepToReveal(desk, scene.state, { reveal, sealed }) };
        });
        return { entry };
      }),

    "ceremony.part": (remote, { ceremonyId, index }) =>
      counted(ctx, remote, async () => {
        const row = await ctx.store.transaction(async (tx) => {
          if (!(await readHead(tx, ceremonyId))) throw noSuchCeremony();
          return readStored(tx, PART, numbered(ceremonyId, index));
        }, ceremonyId);
        if (!row) throw new Fault("not_found", "the ceremony has no secret part for this participant");
        return { sealed: row.value.sealed };
      }),
  };
}
