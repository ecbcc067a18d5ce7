import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { KeyringRequestId, UserId, WorkspaceId } from "../../ids.ts";
import { manifestHash } from "../../protocol/federation/manifest.ts";
import { verifyRequest } from "../../protocol/federation/request.ts";
import { keyringRequestIdOf } from "../../protocol/keyring/keyring.ts";
import { openLife } from "../../protocol/keyring/requestlife.ts";
import type { Tx } from "../../storage/store.ts";
import type { KeyringRequestView } from "../../wire/keyring/views.ts";
import type { InputOf } from "../../wire/operations.ts";
import { listStored, putStored, readStored, type Stored } from "../documents.ts";
import { escrow } from "./balances.ts";
import { reconsider } from "./coordinator.ts";
import { readKeyring, snapshotOf } from "./keyrings.ts";
import { keyOf, ownerKeyOf } from "./people.ts";
import { perform, performOn } from "./performing.ts";
import {
  APPROVAL,
  ASKED,
  approvalId,
  MANIFEST,
  OF_STATUS,
  OPEN_COUNT,
  REQUEST,
  type RequestRow,
  statusEntryId,
  statusOwner,
} from "./requestdocuments.ts";
import { checkItems, courseOf, kindOfRequest, type NewItem, type NewRequest } from "./requestrules.ts";
import { type Desk, noSuchRequest, openCounts, openScene, type Scene, sceneOf } from "./scene.ts";
import type { RegistryService } from "./service.ts";
import { requestView, sizeOfView } from "./views.ts";
import { demandReader, shown } from "./voting.ts";
import { demandOwner, headOf, ownerOf } from "./workspaces.ts";

type Work = Pick<RegistryService, "keyring.request" | "keyring.request.get" | "keyring.requests" | "workspace.inbox">;

/** Requests that one account, and one workspace at one keyring, may have open at once. */
export const OPEN_MAX = { account: 2_048, workspace: 8_192 } as const;

/** Requests in one answer: as many as the codec takes, and about so many bytes. */
const PAGE = 8;
const PAGE_BYTES = 96 * 1_024;

async function demandRoom(tx: Tx, row: RequestRow): Promise<void> {
  const [account, workspace] = openCounts(row);
  const of = async (id: string) => (await readStored(tx, OPEN_COUNT, id))?.value.count ?? 0;
  if ((await of(account.id)) >= OPEN_MAX.account || (await of(workspace.id)) >= OPEN_MAX.workspace)
    throw new Fault("rate_limited", "too many requests are open", { hint: "wait for some, or cancel them" });
}

/** Writes the parts of a new request that never change. */
async function lay(scene: Scene, of: NewRequest, items: readonly NewItem[]): Promise<void> {
  const { tx, requestId, nowMs } = scene;
  const { manifest } = of.keyring.value;
  const id = scene.value.manifestHash.toHex();
  if (!(await readStored(tx, MANIFEST, id)))
    await putStored(tx, MANIFEST, { id, owner: "", place: nowMs, value: { manifest } }, 0);
  const snapshot = { parties: scene.value.parties, threshold: scene.value.life.threshold, fee: scene.value.fee };
  for (const [place, item] of items.entries()) {
    const row = { id: item.id, owner: requestId, place, value: { request: item.asked } };
    // the same item of another request: its id is taken
    if (!(await putStored(tx, ASKED, row, 0)))
      throw new Fault("conflict", "one of its items belongs to another request already");
    const value = {
      requestId,
      course: courseOf(item, of, snapshot),
      seq: 0,
      order: null,
      decision: null,
      certificate: item.certificate,
      confirmations: [],
      partials: [],
      result: null,
      explanation: { policy: of.workspaceId, decision: "wait" as const, rule: null, why: "" },
    };
    const stored = { id: item.id, owner: requestId, place, value, version: 0 };
    scene.items.set(item.id, { id: item.id, stored, value, exchange: null });
  }
}

/** Making requests and looking at them (docs/protocol.md §9.6). */
export function createRequests(desk: Desk): Work {
  const { site } = desk;
  const { store } = site.ctx;

  /** A new request: permission, snapshot, escrow, policy, all in one transaction. */
  async function create(scene: Scene, userId: UserId, of: NewRequest, items: readonly NewItem[]): Promise<void> {
    const { tx, nowMs, requestId } = scene;
    const { workspaceId, fee, life } = scene.value;
    await demandRoom(tx, scene.value);
    await lay(scene, of, items);
    await escrow(tx, { workspaceId, requestId, fee }, nowMs);
    const subject = { workspaceId, keyringId: life.keyringId, requestId };
    await scene.tell({ event: "request.created", ...subject, detail: `${life.kind} ${userId.slice(0, 8)}` });
    await reconsider(scene);
  }

  type Input = InputOf<"keyring.request">;
  type Verified = readonly Pick<NewItem, "id" | "asked">[];

  async function draft(
    tx: Tx,
    tell: Scene["tell"],
    userId: UserId,
    input: Input,
    given: Verified,
    id: KeyringRequestId,
    sealing: Uint8Array,
  ) {
    const { workspaceId, keyringId } = input;
    await demandOwner(tx, workspaceId, userId);
    const keyring = await readKeyring(tx, keyringId);
    const nowMs = site.ctx.now();
    const of: NewRequest = { site, workspaceId, keyring, sealing, owner: await ownerKeyOf(tx, userId), nowMs };
    const kind = kindOfRequest(input.items);
    const items = await checkItems(tx, given, of);
    const { parties, threshold, fee } = snapshotOf(keyring.value, kind, items.length);
    if (input.feeMax !== null && fee > input.feeMax)
      throw new Fault("conflict", `this request costs ${fee} credits by now, more than the ${input.feeMax} agreed to`, {
        hint: "look at the keyring's fees again: keyhold keyring show",
      });
    const expiresAtMs = Math.min(...items.map(({ asked }) => asked.request.expiresAtMs));
    const keys = parties.map(({ key }) => key);
    const life = openLife({
      kind,
      keyringId,
      expiresAtMs,
      threshold,
      parties: keys,
      items: items.map((one) => one.id),
    });
    const row: RequestRow = {
      workspaceId,
      userId,
      life,
      parties,
      fee,
      manifestHash: manifestHash(keyring.value.manifest.manifest),
      why: "",
      ruledUnder: null,
      called: [],
      evidence: [],
      createdAtMs: nowMs,
      updatedAtMs: nowMs,
    };
    // newest first
    const place = Number.MAX_SAFE_INTEGER - nowMs;
    const scene = sceneOf(desk, tx, tell, id, { id, owner: workspaceId, place, value: row, version: 0 });
    return { scene, of, items };
  }

  async function request(userId: UserId, input: Input): Promise<KeyringRequestView> {
    const given = input.items.map((asked) => ({ id: verifyRequest(asked), asked }));
    const ids = given.map(({ id }) => id);
    const requestId = keyringRequestIdOf(input.keyringId, input.workspaceId, ids);
    // nothing but the store is awaited within a transaction
    const { publicKey: sealing } = await desk.pair;
    let made: Awaited<ReturnType<typeof draft>> | undefined;
    const show = await performOn(
      desk,
      requestId,
      async (tx, tell) => {
        made = undefined;
        if (await readStored(tx, REQUEST, requestId)) return openScene(desk, tx, tell, requestId);
        made = await draft(tx, tell, userId, input, given, requestId, sealing);
        return made.scene;
      },
      async (scene) => {
        // the same request again is the same answer
        if (made) await create(scene, userId, made.of, made.items);
        else await demandReader(scene, userId);
        return () => shown(desk, scene, userId);
      },
    );
    return show();
  }

  /** One look at a request: time may have ended it. @throws Fault not_found */
  async function look(requestId: KeyringRequestId, userId: UserId): Promise<KeyringRequestView> {
    const show = await perform(desk, requestId, async (scene) => {
      const { hash } = await demandReader(scene, userId);
      const { life, ruledUnder } = scene.value;
      // a new link of the policy: other owners, other rules
      if (!life.approved && ruledUnder && !equalBytes(ruledUnder, hash)) await reconsider(scene);
      return () => shown(desk, scene, userId);
    });
    return show();
  }

  /** Views of listed requests, as many as one answer takes. */
  async function page(
    tx: Tx,
    ids: readonly KeyringRequestId[],
    userId: UserId,
    more: boolean,
    fits: (row: Stored<RequestRow>) => Promise<boolean>,
  ) {
    const items: KeyringRequestView[] = [];
    let bytes = 0;
    for (const id of ids) {
      const row = await readStored(tx, REQUEST, id);
      if (!row || !(await fits(row))) continue;
      const view = await requestView(tx, row, userId);
      bytes += sizeOfView(view);
      if (items.length > 0 && bytes > PAGE_BYTES) return { items, more: true };
      items.push(view);
    }
    return { items, more };
  }

  async function list(tx: Tx, userId: UserId, { workspaceId, status, after }: InputOf<"keyring.requests">) {
    await demandOwner(tx, workspaceId, userId);
    const last = after === null ? undefined : await readStored(tx, REQUEST, after);
    if (after !== null && last?.value.workspaceId !== workspaceId) throw noSuchRequest();
    if (status === null) {
      const rows = await listStored(tx, REQUEST, workspaceId, last ?? null, PAGE + 1);
      const ids = rows.slice(0, PAGE).map(({ id }) => id as KeyringRequestId);
      return page(tx, ids, userId, rows.length > PAGE, async () => true);
    }
    const from = last && after ? { place: last.place, id: statusEntryId(status, after) } : null;
    const rows = await listStored(tx, OF_STATUS, statusOwner(workspaceId, status), from, PAGE + 1);
    const ids = rows.slice(0, PAGE).map(({ id }) => id.slice(status.length + 1) as KeyringRequestId);
    return page(tx, ids, userId, rows.length > PAGE, async () => true);
  }

  /** True for an owner by the newest head. */
  async function owns(tx: Tx, workspaceId: WorkspaceId, userId: UserId): Promise<boolean> {
    const key = await keyOf(tx, "owner", userId);
    return key !== undefined && ownerOf(await headOf(tx, workspaceId), key) !== undefined;
  }

  async function inbox(tx: Tx, userId: UserId, after: KeyringRequestId | null) {
    const key = await keyOf(tx, "owner", userId);
    if (!key) return { items: [], more: false };
    const owner = key.toHex();
    const last = after === null ? undefined : await readStored(tx, REQUEST, after);
    // one of others begins no page: it is told from none by nothing
    if (after !== null && !(last && (await owns(tx, last.value.workspaceId, userId)))) throw noSuchRequest();
    const from = last && after ? { place: last.place, id: approvalId(key, after) } : null;
    const rows = await listStored(tx, APPROVAL, owner, from, PAGE + 1);
    const ids = rows.slice(0, PAGE).map(({ id }) => id.slice(owner.length + 1) as KeyringRequestId);
    const nowMs = site.ctx.now();
    // an owner who was removed meanwhile sees nothing; what has just expired waits for nobody
    return page(tx, ids, userId, rows.length > PAGE, async ({ value }) => {
      return value.life.expiresAtMs > nowMs && (await owns(tx, value.workspaceId, userId));
    });
  }

  return {
    async "keyring.request"({ account: { userId } }, input) {
      return request(userId, input);
    },
    "keyring.request.get": ({ account: { userId } }, { requestId }) => look(requestId, userId),
    "keyring.requests": ({ account: { userId } }, input) => store.transaction((tx) => list(tx, userId, input)),
    "workspace.inbox": ({ account: { userId } }, { after }) => store.transaction((tx) => inbox(tx, userId, after)),
  };
}
