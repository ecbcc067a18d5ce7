import type { Keeping } from "../../src/client/federation/ground.ts";
import { verifySignature } from "../../src/crypto/identity.ts";
import { messageBytes, messageHash, type SignedMessage, signMessage } from "../../src/protocol/federation/message.ts";
import type { ServerFaults, WorldServer } from "../support/federationworld.ts";

/** A mistake that the simulation must find: in every honest server, or in what the client keeps. */
export interface FederationBug {
  readonly faults?: (servers: readonly WorldServer[]) => ServerFaults;
  readonly keeping?: (keeping: Keeping) => Keeping;
  /** A seed from which on it shows soon. */
  readonly near?: number;
  /** How a run that finds it complains. */
  readonly shows: RegExp;
}

const signerOf = (servers: readonly WorldServer[], index: number) => {
  const found = servers.find((server) => server.index === index);
  if (!found) throw new Error(`no server ${index}`);
  return found.signer;
};

/** As if a server never looked at signatures: what was altered on the way counts as said. */
const takesUnsigned = (servers: readonly WorldServer[]): ServerFaults => ({
  rewrite: (messages) =>
    messages.map((one) => {
      const signer = signerOf(servers, one.message.from);
      const holds = verifySignature(signer.publicKey, messageBytes(one.message), one.signature);
      return holds ? one : signMessage(signer, one.message);
    }),
});

/** As if a server never compared echoes: each says what the server has seen itself. */
function skipsEchoes(servers: readonly WorldServer[]): ServerFaults {
  const seen = new Map<string, SignedMessage>();
  const placeOf = ({ message: m }: SignedMessage, to: number) => `${m.requestId} ${m.attempt} ${to} ${m.from}`;
  return {
    rewrite(messages, to) {
      for (const one of messages) {
        if (one.message.payload.round !== "commit" || seen.has(placeOf(one, to))) continue;
        if (verifySignature(signerOf(servers, one.message.from).publicKey, messageBytes(one.message), one.signature)) {
          seen.set(placeOf(one, to), one);
        }
      }
      const self = servers.find((server) => server.index === to);
      return messages.map((one) => {
        const { payload, from, requestId } = one.message;
        if (payload.round !== "echo") return one;
        const said = self?.requests.get(requestId)?.running?.messages.find((m) => m.message.payload.round === "commit");
        const agreed = payload.seen.map(({ index, hash }) => {
          const own = index === to ? said : seen.get(`${requestId} ${one.message.attempt} ${to} ${index}`);
          return { index, hash: own ? messageHash(own.message) : hash };
        });
        return signMessage(signerOf(servers, from), { ...one.message, payload: { round: "echo", seen: agreed } });
      });
    },
  };
}

/** The decision is sent, and not on disk. */
const forgetsDecisions = (keeping: Keeping): Keeping => ({
  ...keeping,
  async changeRequest(requestId, change) {
    let decided: Awaited<ReturnType<Keeping["changeRequest"]>> = null;
    await keeping.changeRequest(requestId, (held) => {
      const next = change(held);
      decided = next;
      return next?.decision && !held?.decision ? held : next;
    });
    return decided;
  },
});

/** Every planted bug by what it does. */
export const FEDERATION_BUGS: Readonly<Record<string, FederationBug>> = {
  "echoes are not compared": { faults: skipsEchoes, near: 9, shows: /dealt shares although/ },
  "the acceptance is not kept before it is sent": { keeping: forgetsDecisions, shows: /not on disk/ },
  "an attempt is begun again after a restart": {
    faults: () => ({ beginsAgain: true }),
    near: 11,
    shows: /two first messages|honest server was named/,
  },
  "nonces are used again": { faults: () => ({ reusesNonces: true }), near: 1, shows: /nonces were used twice/ },
  "signatures of messages are not checked": { faults: takesUnsigned, shows: /honest server was named/ },
  "a key counts before it is accepted": { faults: () => ({ keepsEarly: true }), shows: /nobody accepted/ },
  "the old generation still serves": {
    faults: () => ({ servesOld: true }),
    near: 1,
    shows: /share of a generation that was left/,
  },
  "an attempt begins before approval": { faults: () => ({ asksNoPolicy: true }), near: 10, shows: /without approval/ },
};
