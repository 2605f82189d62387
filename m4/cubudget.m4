# CUBUDGET_WARNINGS: the warning flags each object is built with, in WARN_CFLAGS; sanitizer flags in SANITIZER_CFLAGS.
AC_DEFUN([CUBUDGET_WARNINGS], [
  WARN_CFLAGS="-Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wvla -Wundef"
  AS_IF([test "x$enable_werror" = xyes], [WARN_CFLAGS="$WARN_CFLAGS -Werror"])
  SANITIZER_CFLAGS=
  AS_IF([test "x$with_sanitizer" != xno],
    [SANITIZER_CFLAGS="-fsanitize=$with_sanitizer -fno-omit-frame-pointer"])
  AC_SUBST([WARN_CFLAGS])
  AC_SUBST([SANITIZER_CFLAGS])
  AM_CONDITIONAL([SANITIZED], [test "x$with_sanitizer" != xno])
])

# CUBUDGET_CUDA_HEADER: where a cuda.h is, if anywhere; only a test that compares our declarations with it uses it.
AC_DEFUN([CUBUDGET_CUDA_HEADER], [
  AC_ARG_WITH([cuda],
    [AS_HELP_STRING([--with-cuda=DIR], [compare our ABI declarations with DIR/include/cuda.h in make check])],
    [], [with_cuda=auto])
  AC_MSG_CHECKING([for cuda.h])
  CUDA_HEADER_DIR=
  AS_CASE([$with_cuda],
    [no], [],
    [auto|yes], [
      for cubudget_dir in "$CUDA_HOME" "$CUDA_PATH" /usr/local/cuda /usr/lib/cuda /usr /opt/cuda; do
        AS_IF([test -n "$cubudget_dir" && test -z "$CUDA_HEADER_DIR" && test -r "$cubudget_dir/include/cuda.h"],
          [CUDA_HEADER_DIR="$cubudget_dir/include"])
      done],
    [AS_IF([test -r "$with_cuda/include/cuda.h"], [CUDA_HEADER_DIR="$with_cuda/include"],
       [AC_MSG_ERROR([--with-cuda=$with_cuda: there is no $with_cuda/include/cuda.h])])])
  AC_MSG_RESULT([${CUDA_HEADER_DIR:-no}])
  AC_SUBST([CUDA_HEADER_DIR])
  AM_CONDITIONAL([HAVE_CUDA_HEADER], [test -n "$CUDA_HEADER_DIR"])
])
