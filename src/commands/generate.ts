import type { Where } from "../client/api.ts";
import { wipe } from "../crypto/bytes.ts";
import { defineCommand } from "../ui/command.ts";
import { expiryOf } from "../ui/recordfields.ts";
import { withClient } from "../ui/session.ts";
import { currentOf, EXPIRES_ARG, FIELD_ARGS, fieldsAfter, namesFields } from "./fieldargs.ts";
import { SECRET_ARG, TYPE_ARG, WRITE_ARGS, writtenResult } from "./secretargs.ts";

export default defineCommand({
  args: {
    ...SECRET_ARG,
    ...TYPE_ARG,
    bytes: { type: "integer", min: 1, max: 65_536, description: "length in bytes (bytes, token; default 32)" },
    length: {
      type: "integer",
      min: 1,
      max: 65_536,
      description:
        "length: characters (password, login; default 24), digits (pin), words (passphrase, bip39), bits (rsa)",
    },
    replace: { type: "boolean", description: "make a new version of a name that exists" },
    ...FIELD_ARGS,
    ...EXPIRES_ARG,
    ...WRITE_ARGS,
  },
  data: "{name, keyId, type, version, tags, where, publicKeyHex?, queued?}; never the value",
  details: `The value is made on this device from the server's and this device's randomness, and is not shown.

With --type login it is the password; --user, --url and --set give the fields beside it. A new version keeps the fields that are not named.`,
  examples: [
    ["keyhold generate db/prod", "32 random bytes"],
    ["keyhold generate web/admin --type password --length 32 --tag web", "a password of 32 characters"],
    ["keyhold generate web/shop --type login --user ada --url https://shop.example", "a login with its password"],
    ["keyhold generate web/shop --type login --replace --expires 90d", "another password, which ends to be good"],
    ["keyhold generate wallet --type secp256k1", "a key pair; the public key is shown"],
  ],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const where = (await ctx.settings()).get("store", args.store) as Where | null;
      const before = namesFields(args) && args.replace ? await currentOf(client, args.name) : null;
      wipe(before?.value);
      const fields = namesFields(args) ? { fields: await fieldsAfter(ctx, args, before?.fields ?? [], args.name) } : {};
      const making = client.generate({
        name: args.name,
        type: args.type ?? "bytes",
        length: args.bytes ?? args.length,
        tags: args.tag,
        ...fields,
        ...(args.expires === null ? {} : { expiresAt: expiryOf(args.expires, Date.now()) }),
        replace: args.replace,
        where,
      });
      return writtenResult(await ctx.term.step("Generating", making));
    }),
});
