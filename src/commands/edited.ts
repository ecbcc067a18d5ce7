import type { KeyholdClient, StoreInput, Written } from "../client/api.ts";
import { Fault } from "../errors.ts";
import type { Field } from "../protocol/content.ts";
import { isCustodial } from "../protocol/provenance.ts";
import { isTextType, VISIBLE_TYPES, type VisibleType } from "../protocol/secrettype.ts";
import type { Context } from "../ui/command.ts";
import { type Result, result } from "../ui/output.ts";
import { decodeText } from "../ui/text.ts";
import type { Current } from "./fieldargs.ts";

/** What is stored in place of a version that was seen. */
export type Edited = Pick<StoreInput, "type" | "value" | "fields" | "expiresAt">;

/** The answer where nothing was stored. */
export function unchanged({ name, version }: Current): Result {
  return result({ name, version, unchanged: true }, () => "nothing was changed");
}

/** True for the same fields in the same order. */
export function sameFields(a: readonly Field[], b: readonly Field[]): boolean {
  return (
    JSON.stringify(a.map(({ name, kind, value }) => [name, kind, value])) ===
    JSON.stringify(b.map(({ name, kind, value }) => [name, kind, value]))
  );
}

/** A type that people see. */
export function visibleType(type: string): VisibleType {
  return VISIBLE_TYPES.find((one) => one === type) ?? "bytes";
}

/** The value as text that can be edited; null for bytes. */
export function editableText({ type, value }: Current): string | null {
  return isTextType(visibleType(type)) ? decodeText(value) : null;
}

/**
 * Stores what was typed on top of the version that was shown. Where another one came in meanwhile, the person decides:
 * what was typed is lost only if they say so.
 *
 * @throws Fault conflict where nobody can be asked
 */
export async function storeEdited(
  ctx: Pick<Context, "term" | "out">,
  client: KeyholdClient,
  current: Current,
  edited: Edited,
): Promise<Written> {
  const about = { name: current.name, tags: [], where: null, ...edited };
  try {
    return await ctx.term.step("Storing", client.store({ ...about, ifVersion: current.version }));
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== "conflict" || !ctx.term.canPrompt) throw error;
    const choice = await ctx.term.select(
      "The secret was changed meanwhile. What becomes of your changes?",
      [
        { value: "over", label: "store them as the newest version", hint: "the other one stays in the history" },
        { value: "other", label: "store them under another name" },
        { value: "drop", label: "drop them" },
      ],
      { needed: "a decision", fix: "run the command again" },
    );
    if (choice === "drop") throw error;
    if (choice === "over") return await ctx.term.step("Storing", client.store({ ...about, ...kept(about, current) }));
    const name = await ctx.term.text("Name to store them under", { needed: "a name", fix: "keyhold edit NAME" });
    const type = about.type ?? visibleType(current.type);
    const whole = kept(about, current);
    return await ctx.term.step("Storing", client.store({ ...about, ...whole, name, type, ifVersion: 0 }));
  }
}

/** What was not typed is what was shown, and not what came in meanwhile. */
function kept(edited: Edited, current: Current): Pick<StoreInput, "value" | "fields" | "expiresAt" | "origin"> {
  return {
    value: edited.value ?? current.value,
    fields: edited.fields ?? current.fields,
    expiresAt: edited.expiresAt === undefined ? current.expiresAt : edited.expiresAt,
    ...(edited.value === null && isCustodial(current.origin) ? { origin: current.origin } : {}),
  };
}
