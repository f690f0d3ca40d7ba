// Types are taken off, nothing else: transpile.mjs SOURCE.ts TARGET.mjs
import { readFileSync, writeFileSync } from 'node:fs';
import typescript from 'typescript';

const [source, target] = process.argv.slice(2);
const { outputText } = typescript.transpileModule(readFileSync(source, 'utf8'), {
  compilerOptions: { module: 'ESNext', target: 'ES2022' },
});
writeFileSync(target, outputText);
