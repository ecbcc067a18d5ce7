import { Fault } from "../../errors.ts";
import type { FederationId } from "../../ids.ts";
import type { Manifest } from "../../protocol/federation/manifest.ts";
import { NO_LOG } from "../logpin.ts";
import { type Open, save } from "../opened.ts";
import type { Held, HeldFederation, HeldServer } from "./held.ts";

/** What this vault holds of federations, as it was last read or written. */
export const heldIn = (open: Open): Held => open.box.model.held;

/** Changes what the vault holds of federations, in its newest generation; on disk on return, or not made at all. */
export async function changeHeld(open: Open, change: (held: Held) => Held): Promise<void> {
  let undo = () => {};
  try {
    await save(open, (model) => {
      const before = model.held;
      undo = () => {
        model.held = before;
      };
      model.held = change(before);
    });
  } catch (error) {
    // what cannot be written would hinder every later change
    undo();
    throw error;
  }
}

/** The manifest that a federation goes by. */
export function newestOf({ manifests }: Pick<HeldFederation, "manifests">): Manifest {
  const last = manifests.at(-1);
  if (!last) throw new Fault("corrupt", "the vault holds a federation without a manifest");
  return last.manifest;
}

/** Whatever is true for a device that cannot get at a federation: without F there is no way in. */
const NO_SECRET =
  "link this device (keyhold account device link on another one), or use the recovery kit (keyhold account recover)";

/** The secret F, still the vault's. @throws Fault not_found on a device that has none */
export function secretIn(open: Open): Uint8Array {
  const { federationSecret } = heldIn(open);
  if (federationSecret) return federationSecret;
  throw new Fault("not_found", "this device does not have the account's federation secret", {
    why: "it never leaves the owner's devices and recovery kit: no server can give it to who knows the password alone",
    hint: NO_SECRET,
  });
}

/**
 * A federation by its name or id.
 *
 * @throws Fault not_found, which says what to do on a device that has no secret
 */
export function joinedFederation(open: Open, name: string): HeldFederation {
  const { federations, federationPins, federationSecret } = heldIn(open);
  const found = federations.find((one) => one.name === name || one.federationId === name);
  if (found) return found;
  if (federationPins.some((one) => one.name === name || one.federationId === name)) {
    throw new Fault(
      "unavailable",
      `none of the servers of the federation "${name}" could be asked for its manifest yet`,
    );
  }
  throw new Fault("not_found", `this vault has joined no federation "${name}"`, {
    hint: federationSecret
      ? "keyhold federation join URL#PIN"
      : `keyhold federation join URL#PIN; if another device has: ${NO_SECRET}`,
  });
}

/** What is known of a server; nothing yet of a new one. */
export function serverIn(federation: Pick<HeldFederation, "servers">, index: number): HeldServer {
  const known = federation.servers.find((one) => one.index === index);
  return (
    known ?? {
      index,
      userId: null,
      enrolled: false,
      caPem: null,
      statementNumber: 0,
      verified: { seq: 0, link: new Uint8Array(32), revision: 0 },
      log: NO_LOG,
    }
  );
}

/** A list with one federation replaced. */
export function withFederation(
  held: Held,
  federationId: FederationId,
  change: (federation: HeldFederation) => HeldFederation,
): Held {
  const federations = held.federations.map((one) => (one.federationId === federationId ? change(one) : one));
  return { ...held, federations };
}

/** A federation with what was learned of some of its servers. */
export function withServers(federation: HeldFederation, learned: readonly HeldServer[]): HeldFederation {
  const others = federation.servers.filter(({ index }) => learned.every((one) => one.index !== index));
  return { ...federation, servers: [...others, ...learned].sort((a, b) => a.index - b.index) };
}
