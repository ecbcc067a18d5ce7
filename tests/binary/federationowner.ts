import { join } from "node:path";
import type { Ground } from "../../src/client/federation/ground.ts";
import { groundOf } from "../../src/client/federation/grounds.ts";
import type { HeldKey } from "../../src/client/federation/held.ts";
import { joinFederation } from "../../src/client/federation/joining.ts";
import { joinedFederation } from "../../src/client/federation/keeping.ts";
import { type Members, openMembers } from "../../src/client/federation/members.ts";
import { newModel } from "../../src/client/model.ts";
import type { Open } from "../../src/client/opened.ts";
import { createVaultFile } from "../../src/client/vaultbox.ts";
import { newId, type UserId } from "../../src/ids.ts";
import { KDF } from "../../src/protocol/defaults.ts";
import { createVault } from "../../src/protocol/vault.ts";
import { passwordOf, random, testSurroundings } from "../support/harness.ts";
import type { Fleet } from "./fleet.ts";

/** What the relay carries: called before a question is sent and, with the answer, after. */
export type Seen = (index: number, operation: string, input: unknown, output?: unknown) => void | Promise<void>;

/** An owner whose client runs in this process, so that a test sees, and can stop, what it relays. */
export interface Owner {
  readonly open: Open;
  readonly members: Members;
  readonly ground: Ground;
  seen: Seen;
  key(name: string): HeldKey;
  end(): Promise<void>;
}

/** Joins the federation of a fleet with a vault of this process. */
export async function openOwner(fleet: Fleet, federationName: string, password: string): Promise<Owner> {
  const around = testSurroundings();
  const vault = await createVault(passwordOf(password), { cost: KDF.test, allowTestKdf: true }, random);
  const model = newModel(newId<UserId>(random), random(32), null);
  const open = { box: { path: join(fleet.world.dir, "inside.vault"), vault, model }, session: null, around };
  await createVaultFile(open.box, around);
  const { url, pin } = fleet.server(1);
  await joinFederation(open, { url, pin, name: null, invites: [] });
  const federation = joinedFederation(open, federationName);
  const members = openMembers(open, federation);
  const watched: Members = {
    ...members,
    async call(index, operation, input) {
      await owner.seen(index, operation, input);
      const output = await members.call(index, operation, input);
      await owner.seen(index, operation, input, output);
      return output;
    },
  };
  const owner: Owner = {
    open,
    members,
    ground: groundOf(open, federation, watched),
    seen: () => undefined,
    key(name) {
      const key = owner.ground.keeping.keys().find((one) => one.name === name);
      if (!key) throw new Error(`no key ${name}`);
      return key;
    },
    end: () => members.end(),
  };
  return owner;
}
