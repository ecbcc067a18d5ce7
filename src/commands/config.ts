import { DEFAULTS, KDF } from "../protocol/defaults.ts";
import { defineCommand } from "../ui/command.ts";
import { userFile } from "../ui/config.ts";
import { listing } from "../ui/output.ts";

/** `keyhold config show` */
export const show = defineCommand({
  list: true,
  args: { origin: { type: "boolean", description: "say where each value comes from" } },
  data: "{items:[{name, value, origin?}]}",
  examples: [["keyhold config show --origin", "flag, variable, file or default of each setting"]],
  run: async (args, { settings }) => {
    const items = (await settings()).effective();
    const data = {
      items: items.map(({ name, value, origin }) => (args.origin ? { name, value, origin } : { name, value })),
    };
    const heads = args.origin ? ["setting", "value", "origin"] : ["setting", "value"];
    const cells = items.map(({ name, value, origin }) => [
      name,
      value === null ? "-" : String(value),
      ...(args.origin ? [origin] : []),
    ]);
    return listing(data, { heads, cells });
  },
});

/** `keyhold config defaults` */
export const defaults = defineCommand({
  list: true,
  args: {},
  data: "every default by its name, durations in milliseconds (…Ms), sizes in bytes",
  details: "Durations are milliseconds (…Ms), sizes are bytes.",
  examples: [["keyhold config defaults", "time-outs, limits and the cost of key derivation"]],
  run: async () => {
    const cells = [
      ...Object.entries(DEFAULTS).map(([name, value]) => [name, String(value)]),
      ...Object.entries(KDF).map(([name, { memoryKib, passes, lanes }]) => [
        `kdf.${name}`,
        `${memoryKib} KiB, ${passes} passes, ${lanes} lanes`,
      ]),
    ];
    return listing({ ...DEFAULTS, kdf: KDF }, { heads: ["default", "value"], cells });
  },
});

/** `keyhold config path` */
export const path = defineCommand({
  list: true,
  args: {},
  data: "{config, data, state, runtime, server, file}",
  examples: [["keyhold config path", "where settings, vaults and sockets lie"]],
  run: async (_args, { dirs }) => {
    const data = { ...dirs, file: userFile(dirs.config) };
    return listing(data, { heads: ["what", "path"], cells: Object.entries(data) });
  },
});
