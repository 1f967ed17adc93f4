# What `cmake --install` puts where, and the Debian package: `cpack --config build/release/CPackConfig.cmake`, which leaves it in the
# working directory. The files of the system (/etc, /lib) and the manual are installed with the prefix /usr alone.
include(GNUInstallDirs)
set(debian ${CMAKE_CURRENT_SOURCE_DIR}/conf/debian)

# gzip without name and time, so that the same source gives the same file.
find_program(GZIP gzip REQUIRED)
function(compressed input output folder)
  set(made ${CMAKE_CURRENT_BINARY_DIR}/${output})
  add_custom_command(OUTPUT ${made} DEPENDS ${input} COMMAND ${GZIP} -9nc ${input} > ${made} VERBATIM)
  set_property(GLOBAL APPEND PROPERTY compressed ${made})
  install(FILES ${made} DESTINATION ${folder})
endfunction()

install(TARGETS meowbridge RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
compressed(${CMAKE_CURRENT_SOURCE_DIR}/docs/meowbridge.8 meowbridge.8.gz ${CMAKE_INSTALL_MANDIR}/man8)
compressed(${CMAKE_CURRENT_SOURCE_DIR}/docs/meowbridge.json.5 meowbridge.json.5.gz ${CMAKE_INSTALL_MANDIR}/man5)
compressed(${debian}/changelog changelog.gz ${CMAKE_INSTALL_DOCDIR})
compressed(${CMAKE_CURRENT_SOURCE_DIR}/CHANGELOG.md NEWS.md.gz ${CMAKE_INSTALL_DOCDIR})
get_property(files GLOBAL PROPERTY compressed)
add_custom_target(compressed ALL DEPENDS ${files})
install(FILES ${debian}/copyright README.md README.zh-CN.md conf/meowbridge.json DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES docs/operations.md docs/consumers.md docs/reliability.md docs/performance.md docs/asyncapi.yaml docs/page.png
        DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs)
# As they lie in conf: compose.yaml names its neighbours.
install(FILES conf/minimal.json conf/alerts.yml conf/grafana.json conf/compose.yaml conf/kubernetes.yaml DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
install(FILES conf/mosquitto/mosquitto.conf conf/mosquitto/container.conf conf/mosquitto/acl
        DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples/mosquitto)
install(FILES conf/meowbridge.schema.json DESTINATION ${CMAKE_INSTALL_DATADIR}/meowbridge)
install(FILES conf/bash-completion DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME meowbridge)
if(CMAKE_INSTALL_PREFIX STREQUAL "/usr")
  install(FILES conf/meowbridge.service conf/meowbridge.socket DESTINATION /lib/systemd/system)
  install(FILES ${debian}/meowbridge.json DESTINATION /etc/meowbridge)
endif()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_PACKAGE_NAME meowbridge)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "The meowbridge authors <maintainers@meowbridge.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "MeowFlow webhook to MQTT bridge")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION "A daemon that verifies signed webhooks, keeps them in a durable journal and
publishes them to topics that are made from the names of their events.")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON) # needs dpkg-dev
set(CPACK_DEBIAN_PACKAGE_DEPENDS ca-certificates)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS mosquitto)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${debian}/conffiles ${debian}/postinst ${debian}/prerm ${debian}/postrm)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_STRIP_FILES ON)
include(CPack)
