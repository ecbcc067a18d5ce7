import { DEFAULTS, KDF } from "../protocol/defaults.ts";
import { defineCommand } from "../ui/command.ts";
import { userFile } from "../ui/config.ts";
import { result } from "../ui/output.ts";
import { table } from "../ui/table.ts";

/** `keyhold config show` */
export const show = defineCommand({
  args: { origin: { type: "boolean", description: "say where each value comes from" } },
  examples: [["keyhold config show --origin", "flag, variable, file or default of each setting"]],
  run: async (args, { settings, out }) => {
    const items = (await settings()).effective();
    const data = {
      items: items.map(({ name, value, origin }) => (args.origin ? { name, value, origin } : { name, value })),
    };
    const heads = args.origin ? ["setting", "value", "origin"] : ["setting", "value"];
    return result(data, () =>
      table(
        heads,
        items.map(({ name, value, origin }) => [
          name,
          value === null ? "-" : String(value),
          ...(args.origin ? [origin] : []),
        ]),
        out.width,
      ),
    );
  },
});

/** `keyhold config defaults` */
export const defaults = defineCommand({
  args: {},
  details: "Durations are milliseconds (…Ms), sizes are bytes.",
  run: async (_args, { out }) =>
    result({ ...DEFAULTS, kdf: KDF }, () =>
      table(
        ["default", "value"],
        [
          ...Object.entries(DEFAULTS).map(([name, value]) => [name, String(value)]),
          ...Object.entries(KDF).map(([name, { memoryKib, passes, lanes }]) => [
            `kdf.${name}`,
            `${memoryKib} KiB, ${passes} passes, ${lanes} lanes`,
          ]),
        ],
        out.width,
      ),
    ),
});

/** `keyhold config path` */
export const path = defineCommand({
  args: {},
  run: async (_args, { dirs, out }) => {
    const data = { ...dirs, file: userFile(dirs.config) };
    return result(data, () => table(["what", "path"], Object.entries(data), out.width));
  },
});
