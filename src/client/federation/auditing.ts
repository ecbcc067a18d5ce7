import type { AnyHashId, FederatedKeyId } from "../../ids.ts";
import type { AuditHead, SaltedEntry } from "../../protocol/audit.ts";
import type { KeyView, RequestView } from "../../wire/federation/operations.ts";
import { verifyLog } from "../auditing.ts";
import type { FederationClient } from "../federationapi.ts";
import { boundOf } from "../model.ts";
import type { Open } from "../opened.ts";
import { isAbsent } from "./answers.ts";
import type { HeldFederation, HeldServer } from "./held.ts";
import { changeHeld, heldIn, withFederation, withServers } from "./keeping.ts";
import { atServer, type Members } from "./members.ts";
import type { Membership } from "./membership.ts";
import { type KeyStanding, keyViews, requestViews, standings } from "./views.ts";

type Audited = Awaited<ReturnType<FederationClient["auditFederation"]>>;

/** One server's view: its verified log, and what it shows of keys and requests. */
interface View {
  readonly index: number;
  readonly size: number;
  readonly headHex: string;
  readonly entries: readonly SaltedEntry[];
  readonly requests: readonly RequestView[];
}

/** An id of 256 bits as an audit log names it: its first 128 bits. */
const short = (id: AnyHashId): string => id.slice(0, 32);

/**
 * Verifies the log of this account at every server as the house verifies a home server's (docs/protocol.md §6.2), and
 * compares all views of each key: certificates, seals, uses, releases, and the requests behind them.
 */
export async function auditFederation(open: Open, federation: HeldFederation, members: Members): Promise<Audited> {
  const findings: string[] = [];
  const unasked: string[] = [];
  const { servers } = members.manifest;
  const nameOf = (index: number) => `server ${index} (${servers.find((one) => one.index === index)?.url ?? "?"})`;
  const entered = await members.openAll();
  const views: View[] = [];
  const learned: HeldServer[] = [];
  for (const one of entered) {
    if (!one.ok) {
      (isAbsent(one.fault) ? unasked : findings).push(`not verified: ${one.fault.message}`);
      continue;
    }
    try {
      const view = await viewAt(open, members, one.value);
      views.push(view);
      learned.push(view.learned);
    } catch (error) {
      const fault = atServer(one.value.server, error);
      const { message, why } = fault;
      (isAbsent(fault) ? unasked : findings).push(why === undefined ? message : `${message}: ${why}`);
    }
  }
  await changeHeld(open, (held) => withFederation(held, federation.federationId, (now) => withServers(now, learned)));
  const keys = await keyViews(open, members, federation);
  for (const one of keys) if (!one.ok && one.fault.code === "integrity") findings.push(one.fault.message);
  const shown = new Map(keys.flatMap((one) => (one.ok ? [[one.server, one.value] as const] : [])));
  for (const standing of standings(keys)) findings.push(...keyFindings(open, standing, views, shown, nameOf));
  findings.push(...requestFindings(open, views, nameOf));
  return {
    ok: findings.length === 0 && unasked.length === 0,
    servers: views.map(({ index, size, headHex }) => ({ index, size, headHex })),
    findings,
    unasked,
  };
}

/** Verifies one server's whole log, which must lead through what was verified before. @throws Fault integrity */
async function viewAt(
  open: Open,
  members: Members,
  { server, session, model, held }: Membership,
): Promise<View & { readonly learned: HeldServer }> {
  const bound = boundOf(model);
  const { verified } = bound;
  const before: AuditHead = { seq: verified.seq, link: verified.link };
  if (verified.seq > 0 && bound.receipts.every(({ seq }) => seq !== verified.seq)) {
    bound.receipts = [before, ...bound.receipts].sort((a, b) => a.seq - b.seq);
  }
  // from the beginning: events of all servers are compared
  bound.verified = { seq: 0, link: new Uint8Array(32), revision: 0 };
  const entries = new Map<number, SaltedEntry>();
  const see = (salted: SaltedEntry) => entries.set(salted.entry.seq, salted);
  const done = await verifyLog(model, session, open.around, async () => undefined, see).catch((error: unknown) => {
    bound.verified = verified;
    throw error;
  });
  const { size, headHex } = done.verified;
  const learned = { ...held, verified: { ...bound.verified }, log: bound.log };
  const requests = await requestViews(members, server.index);
  return { index: server.index, size, headHex, entries: [...entries.values()], requests, learned };
}

type Name = (index: number) => string;

const logged = ({ entries }: View, action: string, id: AnyHashId, by: "keyId" | "requestId"): boolean =>
  entries.some(({ entry }) => entry.action === action && entry[by] === short(id));

/** Where certificates, shares and logs of one key do not agree. */
function keyFindings(
  open: Open,
  { newest, certified, live, contradicting }: KeyStanding,
  views: readonly View[],
  shown: ReadonlyMap<number, readonly KeyView[]>,
  nameOf: Name,
): readonly string[] {
  const { keyId, requestId, generation, holders } = newest.certificate.certificate;
  const held = heldIn(open).federatedKeys.find((one) => one.keyId === keyId);
  const key = `key ${held?.name ?? keyId.slice(0, 16)}`;
  const findings = contradicting.map(
    (index) => `${key}: ${nameOf(index)} shows another certificate of generation ${generation}`,
  );
  const mine = held?.certificate.certificate.generation ?? 0;
  if (held && mine > generation) findings.push(`${key}: this vault has generation ${mine}, no server has`);
  for (const [index, all] of shown) {
    const view = all.find((one) => one.certificate.certificate.keyId === keyId);
    const at = views.find((one) => one.index === index);
    if (!view) {
      if (holders.includes(index))
        findings.push(`${key}: ${nameOf(index)} is to hold a share, and does not know the key`);
      continue;
    }
    if (view.frozen) findings.push(`${key}: ${nameOf(index)} has frozen it: two contradictory decisions were signed`);
    if (!certified.includes(index) && !contradicting.includes(index))
      findings.push(`${key}: ${nameOf(index)} is still at generation ${view.certificate.certificate.generation}`);
    if (!at) continue;
    if (live.includes(index) && !logged(at, "federation.seal", requestId, "requestId"))
      findings.push(`${key}: ${nameOf(index)} has a share of generation ${generation}, and no entry of sealing it`);
    const released = logged(at, "federation.release", keyId, "keyId");
    if (released !== view.released)
      findings.push(
        released
          ? `${key}: ${nameOf(index)} has let its share out by its log, and does not say so of the key`
          : `${key}: ${nameOf(index)} says that its share was let out, and has no entry of it`,
      );
  }
  return findings;
}

/** Uses that nobody asked for, and such as a server claims and has not logged. */
function requestFindings(open: Open, views: readonly View[], nameOf: Name): readonly string[] {
  const all = new Set([
    ...views.flatMap(({ requests }) => requests.map(({ requestId }) => short(requestId))),
    ...heldIn(open).federatedRequests.map(({ requestId }) => short(requestId)),
  ]);
  const names = new Map(heldIn(open).federatedKeys.map(({ keyId, name }) => [short(keyId), name]));
  const nameIn = (keyId: string) => names.get(keyId) ?? keyId.slice(0, 16);
  return views.flatMap((view) => {
    const at = nameOf(view.index);
    const strange = view.entries.flatMap(({ entry: { action, keyId, requestId } }) => {
      if (action !== "federation.use" && action !== "federation.release") return [];
      if (requestId !== null && all.has(requestId)) return [];
      const what = action === "federation.use" ? "used" : "let out";
      return [`key ${nameIn(keyId ?? "")}: ${at} has ${what} its share for a request that this account never signed`];
    });
    const silent = view.requests.flatMap(({ requestId, request, status }) => {
      const { body } = request.request;
      if (status !== "fulfilled" || (body.kind !== "sign" && body.kind !== "release")) return [];
      const action = body.kind === "sign" ? "federation.use" : "federation.release";
      if (logged(view, action, requestId, "requestId")) return [];
      return [
        `key ${nameIn(short(body.keyId as FederatedKeyId))}: ${at} has answered a request, and has no entry of it`,
      ];
    });
    return [...strange, ...silent];
  });
}
