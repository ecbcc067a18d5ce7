import type { Open } from "../opened.ts";
import type { Ground, Keeping } from "./ground.ts";
import type { HeldFederation, HeldKey, HeldRequest } from "./held.ts";
import { changeHeld, heldIn, secretIn, withFederation } from "./keeping.ts";
import { openLabel, sealLabel } from "./labels.ts";
import type { Members } from "./members.ts";

/** A list with the entry of an id replaced, added or (null) taken out. */
function replaced<T>(all: readonly T[], is: (one: T) => boolean, next: T | null): readonly T[] {
  if (next === null) return all.filter((one) => !is(one));
  return all.some(is) ? all.map((one) => (is(one) ? next : one)) : [...all, next];
}

function keepingOf(open: Open, { federationId }: HeldFederation): Keeping {
  const mine = <T extends { readonly federationId: string }>(all: readonly T[]): readonly T[] =>
    all.filter((one) => one.federationId === federationId);
  return {
    requests: () => mine(heldIn(open).federatedRequests),
    keys: () => mine(heldIn(open).federatedKeys),
    policies: () => heldIn(open).federations.find((one) => one.federationId === federationId)?.policies ?? [],
    async changeRequest(requestId, change) {
      let now: HeldRequest | null = null;
      const is = (one: HeldRequest) => one.requestId === requestId;
      await changeHeld(open, (held) => {
        now = change(held.federatedRequests.find(is) ?? null);
        return { ...held, federatedRequests: replaced(held.federatedRequests, is, now) };
      });
      return now;
    },
    async changeKey(keyId, change) {
      const is = (one: HeldKey) => one.keyId === keyId;
      const result: HeldKey[] = [];
      await changeHeld(open, (held) => {
        const now = change(held.federatedKeys.find(is) ?? null);
        result.push(now);
        return { ...held, federatedKeys: replaced(held.federatedKeys, is, now) };
      });
      const now = result.at(-1);
      return now ?? change(null);
    },
    async changePolicy(policy) {
      const is = (one: { readonly policyId: string }) => one.policyId === policy.policyId;
      await changeHeld(open, (held) =>
        withFederation(held, federationId, (one) => ({ ...one, policies: replaced(one.policies, is, policy) })),
      );
    },
  };
}

/** What the drivers of one federation work on: sessions, vault, secret. */
export function groundOf(open: Open, federation: HeldFederation, members: Members): Ground {
  const { federationId, name, manifests } = federation;
  const { around } = open;
  return {
    fleet: { manifest: members.manifest, call: (index, operation, input) => members.call(index, operation, input) },
    keeping: keepingOf(open, federation),
    manifests: manifests.map(({ manifest }) => manifest),
    get secret() {
      return secretIn(open);
    },
    name,
    now: around.now,
    random: around.random,
    notice: around.notice,
    sealLabel: (requestId, label) => sealLabel(secretIn(open), { federationId, requestId }, label, around.random),
    openLabel: (requestId, sealed) => openLabel(secretIn(open), { federationId, requestId }, sealed),
  };
}
