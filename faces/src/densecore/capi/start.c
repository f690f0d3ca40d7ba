/* Starts Python for a C program: as the interpreter that built the library, with its packages.
 *
 * cffi's embedding calls Py_InitializeEx(0) for this, which would look for whatever python3 is in
 * PATH; build_library compiles that call into one of the function below.
 */
#include <Python.h>
#include <stdio.h>
#include <stdlib.h>

__attribute__((visibility("hidden"))) void densecore_start_python(int install_signal_handlers) {
  /* The program's locale is the program's: Python would set it, and the environment with it. */
  PyPreConfig before;
  PyPreConfig_InitPythonConfig(&before);
  before.configure_locale = 0;
  before.coerce_c_locale = 0;
  before.utf8_mode = 1;
  before.parse_argv = 0;
  PyConfig config;
  PyConfig_InitPythonConfig(&config);
  config.install_signal_handlers = install_signal_handlers;
  config.parse_argv = 0;
  PyStatus status = Py_PreInitialize(&before);
  if (!PyStatus_Exception(status)) status = PyConfig_SetString(&config, &config.program_name, DENSECORE_PYTHON);
  if (!PyStatus_Exception(status)) status = Py_InitializeFromConfig(&config);
  PyConfig_Clear(&config);
  if (PyStatus_Exception(status)) {
    /* There is nothing to go on with: cffi expects an interpreter. */
    fprintf(stderr, "libdensecore: Python does not start: %s\n", status.err_msg ? status.err_msg : "unknown reason");
    abort();
  }
}
