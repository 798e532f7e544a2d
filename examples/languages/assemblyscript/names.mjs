// Gives exports the names that the component model asks for, which AssemblyScript cannot write.

import binaryen from "binaryen";

const NAMES = {
  configure: "tollgate:policy/lifecycle@0.1.0#configure",
  onRequest: "tollgate:policy/request-hook@0.1.0#on-request",
  onResponse: "tollgate:policy/response-hook@0.1.0#on-response",
};

export function afterCompile(module) {
  for (const [name, exported] of Object.entries(NAMES)) {
    const { value } = binaryen.getExportInfo(module.getExport(name));
    module.removeExport(name);
    module.addFunctionExport(value, exported);
  }
}
