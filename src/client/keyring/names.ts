import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { Ground } from "./ground.ts";

/** What has a name at a registry and an id that the name does not follow from. */
type Named = "workspace" | "keyring";

/** Ids of all that this vault has come to know under a name, at this registry. */
function knownAs({ held, identity }: Pick<Ground, "held" | "identity">, what: Named, name: string): readonly string[] {
  const { workspacePins, keyringPins } = held();
  const here = (pin: { readonly registry: Uint8Array; readonly name: string }) =>
    pin.name === name && equalBytes(pin.registry, identity);
  return what === "workspace"
    ? workspacePins.filter(here).map(({ workspaceId }) => workspaceId)
    : keyringPins.filter(here).map(({ keyringId }) => keyringId);
}

/**
 * The id that a name means to this vault: what it was used for here before, whatever the registry lists under it now.
 * Otherwise the registry, or whoever makes another one of that name, would choose what a name means.
 *
 * @returns null for a name that this vault does not know.
 * @throws Fault ambiguous for several
 */
export function knownId(ground: Pick<Ground, "held" | "identity">, what: Named, name: string): string | null {
  const [id, another] = knownAs(ground, what, name);
  if (id === undefined || another === undefined) return id ?? null;
  throw new Fault("ambiguous", `this device knows more than one ${what} called "${name}"`, {
    why: `${id}, ${another}`,
    hint: "give its id",
  });
}

/** Says of what a name means here, and the registry does not show, that this is so. */
export async function ofKnown<T>(what: Named, name: string, id: string, look: () => Promise<T>): Promise<T> {
  try {
    return await look();
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== "not_found") throw error;
    throw new Fault("not_found", `the registry shows no ${what} "${name}" as this device knows it`, {
      why: `its id is ${id}`,
      hint: `another ${what} of that name is meant by its id`,
    });
  }
}

/** A name as people read it: with the id where this vault knows another one of that name. */
export function nameShown(ground: Pick<Ground, "held" | "identity">, what: Named, name: string, id: string): string {
  const others = knownAs(ground, what, name).filter((one) => one !== id);
  return others.length === 0 ? name : `${name} (${id.slice(0, 16)}; this device knows another one of that name)`;
}
