import type { KeyholdClient } from "../client/api.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { Values } from "../ui/args.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { VALUE_ARGS } from "../ui/flags.ts";
import type { Result } from "../ui/output.ts";
import { readValue } from "../ui/password.ts";
import { expiryOf } from "../ui/recordfields.ts";
import { withClient } from "../ui/session.ts";
import { sameFields, storeEdited, unchanged, visibleType } from "./edited.ts";
import { type Current, currentOf, EXPIRES_ARG, FIELD_ARGS, fieldsAfter, namesFields } from "./fieldargs.ts";
import { TYPE_ARG, writtenResult } from "./secretargs.ts";

const ARGS = {
  name: {
    type: "positional",
    complete: "secret",
    description: "name, or a unique prefix of the key id",
    ask: "Name of the secret",
  },
  editor: { type: "boolean", description: "edit the whole record in $VISUAL, $EDITOR or vi" },
  ...FIELD_ARGS,
  ...EXPIRES_ARG,
  ...TYPE_ARG,
  ...VALUE_ARGS,
} as const;
type EditArgs = Values<typeof ARGS>;

export default defineCommand({
  args: ARGS,
  data: "{name, keyId, type, version, tags, where, publicKeyHex?, queued?}; {name, version, unchanged:true} where nothing was changed",
  details: `Without flags it asks at the terminal for each field, with what is there as the answer that Enter gives; of hidden ones an empty answer keeps them. With --editor, and for notes, the record is edited as text: in a private file, in memory where the system has such a place, which is overwritten and removed however the editor ends.

With flags it changes what they name and shows nothing. Changes go on top of the version that was read: where another one came in meanwhile, at a terminal you decide, else it ends with exit 6 and nothing is stored.`,
  examples: [
    ["keyhold edit web/shop", "asks for each field"],
    ["keyhold edit web/shop --editor", "all of it in an editor"],
    ["keyhold edit web/shop --set user=ada --unset phone", "without questions"],
    ["keyhold edit web/shop --ask pin --expires 2027-01-31", "a hidden field, typed unseen"],
  ],
  run: async (args, ctx) => withClient(ctx, (client) => edit(ctx, client, args)),
});

async function edit(ctx: Context, client: KeyholdClient, args: EditArgs): Promise<Result | number> {
  const byFlags = namesFields(args) || args.expires !== null || args.type !== null || args.inFile !== null;
  if (byFlags && args.editor) throw new Fault("usage", "--editor takes no other changes beside it");
  if (!byFlags && !args.editor && !ctx.term.canPrompt) {
    throw new Fault("input_needed", "what to change is needed", { hint: "--set FIELD=VALUE, --editor, or a terminal" });
  }
  const current = await ctx.term.step("Retrieving", currentOf(client, args.name));
  if (current === null) throw new Fault("not_found", "no such secret", { hint: "keyhold store NAME makes one" });
  try {
    if (byFlags) return await editByFlags(ctx, client, args, current);
    const { editInEditor } = await import("./editinteractive.ts");
    if (args.editor || (current.type === "note" && current.fields.length === 0)) {
      return await editInEditor(ctx, client, current);
    }
    return await editByQuestions(ctx, client, current);
  } finally {
    wipe(current.value);
  }
}

async function editByFlags(ctx: Context, client: KeyholdClient, args: EditArgs, current: Current): Promise<Result> {
  const value = args.inFile === null ? null : await readValue(ctx, args.inFile);
  try {
    const fields = namesFields(args) ? { fields: await fieldsAfter(ctx, args, current.fields, current.name) } : {};
    const expires = args.expires === null ? {} : { expiresAt: expiryOf(args.expires, Date.now()) };
    return writtenResult(
      await ctx.term.step(
        "Storing",
        client.store({
          name: current.name,
          type: args.type,
          value,
          tags: [],
          where: null,
          ...fields,
          ...expires,
          ifVersion: current.version,
        }),
      ),
    );
  } finally {
    wipe(value ?? undefined);
  }
}

async function editByQuestions(ctx: Context, client: KeyholdClient, current: Current): Promise<Result> {
  const { askRecord } = await import("./recordprompts.ts");
  const type = visibleType(current.type);
  const { value, fields } = await askRecord(ctx, type, current.fields, { name: current.name, isNew: false });
  try {
    if (value === null && sameFields(fields, current.fields)) return unchanged(current);
    return writtenResult(await storeEdited(ctx, client, current, { type: null, value, fields }));
  } finally {
    wipe(value ?? undefined);
  }
}
