import type { KeyholdClient } from "../client/api.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { Context } from "../ui/command.ts";
import { type Draft, withDraft } from "../ui/editor.ts";
import { EndedBySignal } from "../ui/endedbysignal.ts";
import type { Result } from "../ui/output.ts";
import { type RecordText, readRecord, writeRecord } from "../ui/recordform.ts";
import { plain } from "../ui/text.ts";
import { editableText, sameFields, storeEdited, unchanged, visibleType } from "./edited.ts";
import { type Current, normalField } from "./fieldargs.ts";
import { writtenResult } from "./secretargs.ts";

/** Edits a secret as text in an editor; gives an exit code where a signal ended it. */
export async function editInEditor(ctx: Context, client: KeyholdClient, current: Current): Promise<Result | number> {
  const { expiresAt, fields } = current;
  const before: RecordText = { type: visibleType(current.type), expiresAt, value: editableText(current), fields };
  try {
    return await withDraft(ctx, writeRecord(before, plain(current.name)), async (draft) => {
      for (;;) {
        try {
          const after = await edited(draft, before, current.name);
          if (isSame(before, after)) return unchanged(current);
          return await stored(ctx, client, current, before, after);
        } catch (error) {
          await again(ctx, error);
        }
      }
    });
  } catch (error) {
    if (!(error instanceof EndedBySignal)) throw error;
    return ctx.out.fail(new Fault("interrupted", `ended by ${error.signal}`), error.exit);
  }
}

async function edited(draft: Draft, before: RecordText, name: string): Promise<RecordText> {
  const after = readRecord(await draft.edit(), before);
  const fields = await Promise.all(
    after.fields.map(async (field) => {
      const value = field.kind === "otp" ? await normalField("otp", field.value, name) : field.value;
      return { ...field, value };
    }),
  );
  return { ...after, fields };
}

function isSame(a: RecordText, b: RecordText): boolean {
  return a.type === b.type && a.expiresAt === b.expiresAt && a.value === b.value && sameFields(a.fields, b.fields);
}

async function stored(
  ctx: Context,
  client: KeyholdClient,
  current: Current,
  before: RecordText,
  after: RecordText,
): Promise<Result> {
  const same = after.value === before.value;
  const value = same || after.value === null ? null : new TextEncoder().encode(after.value);
  try {
    const { type, fields, expiresAt } = after;
    return writtenResult(await storeEdited(ctx, client, current, { type, value, fields, expiresAt }));
  } finally {
    wipe(value ?? undefined);
  }
}

/** Refusals of what was typed, after which the editor opens again on it. */
const MENDABLE: ReadonlySet<string> = new Set(["bad_input", "too_large"]);

async function again(ctx: Context, error: unknown): Promise<void> {
  if (!(error instanceof Fault) || !MENDABLE.has(error.code) || !ctx.term.canPrompt) throw error;
  const choice = await ctx.term.select(
    `Nothing was stored: ${error.message}${error.why === undefined ? "" : ` (${error.why})`}.`,
    [
      { value: "again", label: "edit again" },
      { value: "drop", label: "drop the changes" },
    ],
    { needed: "a decision", fix: "run the command again" },
  );
  if (choice === "drop") throw error;
}
