import type { KeyId, UserId } from "../../../src/ids.ts";
import { WRAPPED_BYTES } from "../../../src/protocol/secret.ts";
import type { Middle } from "../../support/harness.ts";
import { editing, inventing, unsealed } from "../../support/hostile.ts";
import { type Attack, type Attempt, attacks } from "../attack.ts";
import type { Stage } from "../stage.ts";

/** A secret's value: another one, an old one, a bent one, none. */

interface Place {
  readonly userId?: UserId;
  readonly name: string;
  readonly version: number;
}

/** The id of a secret by name, as its owner's device knows it. */
async function idOf({ desk, eve }: Stage, { userId, name }: Place): Promise<KeyId> {
  const { data } = await (userId === undefined ? desk : eve.device).ok(["get", name]);
  return data.keyId;
}

async function sealedAt(stage: Stage, place: Place): Promise<Uint8Array> {
  const keyId = await idOf(stage, place);
  const { userId = stage.userId, version } = place;
  const found = await stage.world.server.store.transaction((tx) => tx.sealedValue(userId, keyId, version));
  if (!found) throw new Error("there is no such value");
  return found;
}

/** Answers each get and export with what `edit` makes of the ciphertexts. */
const serving = (stage: Stage, edit: (sealed: Uint8Array, index: number) => Uint8Array): Middle => {
  type Items = { readonly items: readonly { keyId: KeyId; version: number; sealed: Uint8Array }[] };
  const both = ({ items }: Items) => ({ items: items.map((item, i) => ({ ...item, sealed: edit(item.sealed, i) })) });
  return editing(stage.world, { "secret.get": both, "secret.export": both });
};

const GET = ["get", "note/a", "--reveal", "--fresh"];
const EXPORT = ["export", "--all", "--to", "json", "--out", "-"];

const reading = (lie: Middle, command: readonly string[] = GET): Attempt => ({ lie, command, ends: "integrity" });

/** Serves one ciphertext in place of whatever is asked for. */
const instead =
  (place: (stage: Stage) => Place, command?: readonly string[]) =>
  async (stage: Stage): Promise<Attempt> => {
    const other = await sealedAt(stage, place(stage));
    return reading(
      serving(stage, () => other),
      command,
    );
  };

/** Puts the key in front of one value before another's ciphertext. */
const rekeyed =
  (place: Place) =>
  async (stage: Stage): Promise<Attempt> => {
    const other = await sealedAt(stage, place);
    const front = other.subarray(0, WRAPPED_BYTES);
    return reading(serving(stage, (sealed) => Uint8Array.of(...front, ...sealed.subarray(WRAPPED_BYTES))));
  };

const bent = (edit: (sealed: Uint8Array) => Uint8Array) => async (stage: Stage) => reading(serving(stage, edit));

const flip = (at: number) => (sealed: Uint8Array) => sealed.map((byte, i) => (i === at ? byte ^ 1 : byte));

export const VALUES: readonly Attack[] = [
  ...attacks("swap two ciphertexts of a user", ["2.2", "5.4"], {
    "another secret's value": instead(() => ({ name: "note/b", version: 1 })),
    "another secret's wrapped key before the right value": rekeyed({ name: "note/b", version: 1 }),
    "the values of an export in rotation": async (stage) => ({
      lie: editing(stage.world, {
        "secret.export": ({ items }) => ({
          items: items.map((item, i) => ({ ...item, sealed: items[(i + 1) % items.length]?.sealed ?? item.sealed })),
        }),
      }),
      command: EXPORT,
      ends: "integrity",
    }),
    "the items of an export in another order": async (stage) => ({
      lie: editing(stage.world, { "secret.export": ({ items }) => ({ items: items.toReversed() }) }),
      command: EXPORT,
      ends: "integrity",
    }),
    "a value for a program's environment in place of another": async (stage) => {
      const other = await sealedAt(stage, { name: "note/b", version: 1 });
      const show = ["run", "--env", "A=kh://note/a", ...(stage.way === "by itself" ? stage.desk.home.password : [])];
      return {
        lie: serving(stage, () => other),
        command: [...show, "--", "printenv", "A"],
        whole: true,
        ends: "integrity",
      };
    },
  }),
  ...attacks("swap ciphertexts of two users", ["2.2", "5.4"], {
    "another user's value under the same name": instead(({ eve }) => ({
      userId: eve.userId,
      name: "note/a",
      version: 1,
    })),
  }),
  ...attacks("replay an old version", ["5.3", "5.4"], {
    "the first version as the newest": instead(() => ({ name: "note/a", version: 1 })),
    "the newest version as the first": instead(() => ({ name: "note/a", version: 2 }), [...GET, "--version", "1"]),
    "an old version's wrapped key before the newest value": rekeyed({ name: "note/a", version: 1 }),
  }),
  ...attacks("change type, version or id", ["2.2", "5.4"], {
    "a value under another id than was asked for": async (stage) => {
      const keyId = await idOf(stage, { name: "note/b", version: 1 });
      const other = editing(stage.world, {
        "secret.get": ({ items }) => ({ items: items.map((item) => ({ ...item, keyId })) }),
      });
      return reading(other);
    },
    "a value under another version than was asked for": async (stage) =>
      reading(
        editing(stage.world, {
          "secret.get": ({ items }) => ({ items: items.map((item) => ({ ...item, version: item.version - 1 })) }),
        }),
      ),
    "a value with one bit flipped": bent(flip(WRAPPED_BYTES + 40)),
    "a wrapped key with one bit flipped": bent(flip(30)),
    "a value of another suite": bent(flip(WRAPPED_BYTES)),
    "a value cut short": bent((sealed) => sealed.slice(0, -1)),
    "a value with a byte more": bent((sealed) => Uint8Array.of(...sealed, 0)),
    "a value sent twice": async (stage) =>
      reading(editing(stage.world, { "secret.get": ({ items }) => ({ items: [...items, ...items] }) })),
  }),
  ...attacks("hide a secret", ["5.4", "5.6"], {
    "no such value, under seal": async (stage) =>
      reading(inventing(stage.world, "secret.get", () => ({ error: "not_found" }))),
    "no such value, in clear": async () =>
      reading(async (operation, body, forward) =>
        operation === "secret.get" ? unsealed("not_found", 404) : forward(operation, body),
      ),
    "an answer without the value": async (stage) =>
      reading(editing(stage.world, { "secret.get": () => ({ items: [] }) })),
    "no history": async (stage) =>
      reading(
        inventing(stage.world, "secret.history", () => ({ error: "not_found" })),
        ["history", "note/a"],
      ),
    "a history without its first change": async (stage) =>
      reading(editing(stage.world, { "secret.history": (output) => ({ ...output, leaves: output.leaves.slice(1) }) }), [
        "history",
        "note/a",
      ]),
  }),
];
