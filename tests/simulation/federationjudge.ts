import type { FleetInput, FleetOperation } from "../../src/client/federation/ground.ts";
import type { HeldKey } from "../../src/client/federation/held.ts";
import type { UseResult } from "../../src/client/federation/use.ts";
import { shareFits } from "../../src/protocol/federation/blame.ts";
import { certificateHash, verifyCertificate } from "../../src/protocol/federation/certificate.ts";
import { groupOf } from "../../src/protocol/federation/groups.ts";
import { messageHash, type SignedMessage } from "../../src/protocol/federation/message.ts";
import { signatureHolds } from "../../src/protocol/federation/signing.ts";
import type { ClientWorld } from "../client/federation/clientworld.ts";

/** Watches a run, and says what must never happen. */
export interface FederationJudge {
  readonly wrong: string[];
  before(index: number, name: FleetOperation, input: unknown): void;
  after(index: number, name: FleetOperation, input: unknown, answer: unknown): void;
  signature(key: HeldKey, message: Uint8Array, used: UseResult): void;
  value(used: UseResult): UseResult;
  end(): void;
}

/** Judges what honest servers say and hold, whatever the network, one liar and the client's crashes do. */
export function federationJudge(world: ClientWorld, liar: number | null): FederationJudge {
  const wrong: string[] = [];
  const say = (text: string) => {
    if (!wrong.includes(text)) wrong.push(text);
  };
  const decisions = new Map<string, Set<string>>();
  const commits = new Map<string, Set<string>>();
  const nonces = new Map<string, string>();
  const seen = new Map<string, Set<string>>();
  const values = new Set<string>();
  const named = new Set<string>();
  /** Uses that a server had begun while their generation was current: repeating what was said is no use. */
  const served = new Set<string>();
  const honest = (index: number) => index !== liar;

  function note(map: Map<string, Set<string>>, place: string, value: string): number {
    const all = map.get(place) ?? new Set<string>();
    map.set(place, all.add(value));
    return all.size;
  }

  function heard(index: number, one: SignedMessage): void {
    const { message } = one;
    if (message.payload.round !== "commit" || !honest(index)) return;
    const place = `${message.requestId} ${message.attempt} ${message.from}`;
    note(seen, place, one.signature.toHex());
  }

  function said(index: number, { message }: SignedMessage): void {
    const { payload, requestId, attempt } = message;
    const place = `${requestId} ${attempt}`;
    if (payload.round === "commit" && note(commits, `${place} ${index}`, messageHash(message).toHex()) > 1) {
      say("an honest server said two first messages in one attempt");
    }
    if (payload.round === "share" && liar !== null && (seen.get(`${place} ${liar}`)?.size ?? 0) > 1) {
      say("an honest server dealt shares although two first messages of one server are about");
    }
    if (payload.round === "nonces") {
      const used = nonces.get(payload.hiding.toHex());
      if (used !== undefined && used !== `${place} ${index}`) say("nonces were used twice");
      nonces.set(payload.hiding.toHex(), `${place} ${index}`);
    }
  }

  return {
    wrong,
    before(index, name, input) {
      if (name === "federation.relay")
        for (const one of (input as FleetInput<"federation.relay">).messages) heard(index, one);
      if (name === "federation.decide") {
        const { decision } = input as FleetInput<"federation.decide">;
        const held = world.disk.requests.find(({ requestId }) => requestId === decision.decision.requestId);
        if (!held?.decision) say("a decision was sent that is not on disk");
        const count = note(decisions, decision.decision.requestId, decision.signature.toHex());
        if (count > 1) say("there are two decisions on one request");
      }
    },
    after(index, name, input, answer) {
      if (!honest(index)) return;
      const { messages } = answer as { readonly messages?: readonly SignedMessage[] };
      for (const one of messages ?? []) said(index, one);
      if (name !== "federation.begin" || !messages || messages.length === 0) return;
      const server = world.at(index);
      const { requestId } = (input as FleetInput<"federation.begin">).order.order;
      const body = server.requests.get(requestId)?.signed.request.body;
      if (server.ruling !== "allow") say("an attempt began without approval");
      if (body?.kind !== "sign" && body?.kind !== "release") return;
      const key = server.keys.get(body.keyId);
      const current = key?.certificate.certificate.generation ?? 0;
      const fresh = messages.some(({ message }) => message.requestId === requestId);
      if (fresh && body.generation < current && !served.has(`${index} ${requestId}`)) {
        say("a server used its share of a generation that was left");
      }
      served.add(`${index} ${requestId}`);
    },
    signature(key, message, used) {
      const { certificate } = key.certificate;
      if (certificate.type !== "ed25519" && certificate.type !== "schnorr") return;
      const signature = Uint8Array.fromHex(used.signatureHex ?? "");
      if (used.signatureHex !== null && !signatureHolds(certificate, message, signature))
        say("a signature does not hold");
    },
    value(used) {
      if (used.value !== null) values.add(used.value.toHex());
      if (values.size > 1) say("a key has two values");
      return used;
    },
    end() {
      for (const { culprits } of world.disk.requests) for (const { index } of culprits) named.add(String(index));
      for (const text of world.notices) {
        const found = /https:\/\/s(\d+)\.test was proven to cheat/.exec(text);
        if (found?.[1]) named.add(found[1]);
      }
      if ([...named].some((index) => honest(Number(index)))) say("an honest server was named");
      const accepted = new Set(
        world.servers.flatMap(({ requests }) =>
          [...requests.values()].flatMap(({ life, requestId }) =>
            life.decision?.verdict === "accept" ? [requestId] : [],
          ),
        ),
      );
      for (const { index, keys } of world.servers) {
        if (!honest(index)) continue;
        for (const [keyId, { certificate: signed, share, frozen }] of keys) {
          const { certificate } = signed;
          if (frozen) say("a key was frozen");
          if (!accepted.has(certificate.requestId)) say("a server holds a key that nobody accepted");
          const own = world.disk.keys.find((one) => one.keyId === keyId);
          if (!own) say("a server holds a key that nobody accepted, or the vault has lost it");
          try {
            verifyCertificate(signed, world.ground.fleet.manifest);
          } catch {
            say("a server holds a certificate that nobody accepted");
          }
          if (share && !shareFits(groupOf(certificate.type), certificate.commitments, index, share)) {
            say("a share does not fit its certificate");
          }
          const newest = own?.certificate.certificate;
          const same = newest?.generation === certificate.generation;
          if (newest && same && !equal(certificateHash(newest), certificateHash(certificate))) {
            say("two certificates of one generation");
          }
        }
      }
    },
  };
}

const equal = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;
